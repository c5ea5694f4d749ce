"""What `oci.manifest` promises: documents become checked values, or an error says where."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest

from syncd.errors import ImageError, LimitError, VerificationError
from syncd.oci.document import VALUES_MAX, parse_json
from syncd.oci.image import read_image
from syncd.oci.manifest import Descriptor, Image
from syncd.oci.reference import Platform
from tests.archives import file
from tests.images import Content, describe, digest, document, image, index, layer
from tests.templates import AMD64

OCI = "application/vnd.oci.image."
GENERIC = ("application/json", "application/octet-stream", "text/plain", "")
LAYER = layer(file("a"))
SIMPLE = image(LAYER)
ARM = image(layer(file("arm")), platform="linux/arm64/v8")


class Memory:
    """A source whose documents are in memory."""

    def __init__(self, content: Content) -> None:
        self.blobs = content.blobs
        self.read: list[str] = []

    def document(self, wanted: Descriptor) -> bytes:
        """Return it, verified."""
        self.read.append(str(wanted.digest))
        return wanted.verify(self.blobs[str(wanted.digest)])

    def blob(self, wanted: Descriptor, offset: int = 0) -> Any:
        """Never asked for: reading an image reads no layer."""
        raise AssertionError(wanted)


def resolve(content: Content, platform: Platform = AMD64) -> Image:
    """Read an image from its top."""
    return read_image(Memory(content), Descriptor.parse(content.descriptor, "top"), platform)


def changed(content: Content, **fields: object) -> Content:
    """Return a manifest or index with other fields; None takes one away."""
    merged = content.document | fields
    kept = {key: value for key, value in merged.items() if value is not None}
    again = document(kept, content.blobs)
    return Content({**again.descriptor, "mediaType": content.descriptor["mediaType"]}, again.blobs)


def configured(config: Mapping[str, object] | bytes) -> Content:
    """Return an image of one layer with this config."""
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    descriptor = describe(f"{OCI}config.v1+json", raw)
    whole = changed(SIMPLE, config=descriptor)
    return Content(whole.descriptor, whole.blobs | {descriptor["digest"]: raw})


@pytest.mark.parametrize("docker", [False, True])
def test_image(docker: bool) -> None:
    """OCI and Docker documents become the same values."""
    content = image(LAYER, layer(file("b")), docker=docker, runtime={"Env": ["A=b"]})
    whole = index(ARM, content, docker=docker, attestation=True)
    found = resolve(whole)
    assert str(found.digest) == whole.digest
    assert str(found.manifest_digest) == content.digest
    assert str(found.config_digest) == content.document["config"]["digest"]
    assert found.raw_config == content.blobs[str(found.config_digest)]
    assert found.manifest.raw == content.blobs[content.digest]
    assert found.runtime == {"Env": ["A=b"]}
    assert [str(one.descriptor.digest) for one in found.layers] == [
        one["digest"] for one in content.document["layers"]
    ]
    assert str(found.layers[0].diff_id) == digest(LAYER.plain)
    assert found.size == sum(one["size"] for one in content.document["layers"])


@pytest.mark.parametrize(
    ("content", "platform", "expected"),
    [
        (SIMPLE, "linux/amd64", SIMPLE),
        (index(SIMPLE), "linux/amd64", SIMPLE),
        (index(ARM, SIMPLE), "linux/amd64", SIMPLE),
        (index(ARM, SIMPLE), "linux/arm64", ARM),
        (index(ARM, SIMPLE, attestation=True), "linux/arm64/v8", ARM),
        (index(index(SIMPLE)), "linux/amd64", SIMPLE),
    ],
)
def test_platforms(content: Content, platform: str, expected: Content) -> None:
    """The platform's manifest is found, through indexes, and never an attestation."""
    assert str(resolve(content, Platform.parse(platform)).manifest_digest) == expected.digest


def bare(*contents: Content) -> Content:
    """Return an index whose entries have no platform."""
    return changed(index(*contents), manifests=[content.descriptor for content in contents])


def listed(*entries: tuple[Content, Mapping[str, object]]) -> Content:
    """Return an index of images with other fields in their entries."""
    whole = index()
    for content, _ in entries:
        whole.blobs.update(content.blobs)
    manifests = [{**content.descriptor, **more} for content, more in entries]
    return changed(whole, manifests=manifests)


def on(platform: str, **more: object) -> dict[str, object]:
    """Return an entry's platform; `_` in a name stands for a dot."""
    words = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return {"platform": words | {key.replace("_", "."): value for key, value in more.items()}}


OTHER = image(layer(file("other")))
HELM = "application/vnd.cncf.helm"
V6 = image(layer(file("v6")), platform="linux/arm/v6")
V7 = image(layer(file("v7")), platform="linux/arm/v7")
V8 = image(layer(file("v8")), platform="linux/arm/v8")
CHART = changed(image(layer(file("chart"))), config=describe(f"{HELM}.config.v1+json", b"{}"))
HERE = "linux/amd64"
PROOF = "application/vnd.in-toto+json"
ATTESTED = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}


@pytest.mark.parametrize(
    ("content", "platform", "expected"),
    [
        (listed((OTHER, on(HERE, os_features=["erofs"])), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((OTHER, on(HERE, os_version="5.10")), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((SIMPLE, on(HERE, os_version="5.10"))), HERE, SIMPLE),
        (listed((OTHER, on(HERE) | {"artifactType": PROOF}), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((OTHER, on(HERE) | ATTESTED), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((OTHER, ATTESTED), (SIMPLE, {})), HERE, SIMPLE),
        (listed((SIMPLE, on("Linux/x86_64"))), HERE, SIMPLE),
        (listed((OTHER, {}), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((OTHER, on("linux/amd64/v2")), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((SIMPLE, on(HERE)), (OTHER, on("linux/amd64/v2"))), "linux/amd64/v3", OTHER),
        (listed((SIMPLE, on(HERE))), "linux/amd64/v3", SIMPLE),
        (index(V6, V7), "linux/arm/v7", V7),
        (index(V6, V7), "linux/arm", V7),
        (index(V7, V6), "linux/arm/v6", V6),
        (index(V6, V8), "linux/arm/v7", V6),
        (index(V6, V7, V8), "linux/arm/v8", V8),
        (listed((V7, on("linux/armhf"))), "linux/arm/v7", V7),
        (listed((ARM, on("linux/aarch64/8"))), "linux/arm64", ARM),
        (listed((CHART, on(HERE)), (SIMPLE, on(HERE))), HERE, SIMPLE),
        (listed((CHART, {}), (SIMPLE, {})), HERE, SIMPLE),
        (bare(SIMPLE), HERE, SIMPLE),
        (bare(ARM, SIMPLE), HERE, SIMPLE),
        (bare(V8, V6), "linux/arm/v7", V6),
        (bare(index(ARM), index(SIMPLE)), HERE, SIMPLE),
        (index(index(ARM), index(index(SIMPLE))), HERE, SIMPLE),
    ],
)
def test_choice(content: Content, platform: str, expected: Content) -> None:
    """The nearest variant that needs nothing special is chosen; configs judge what indexes omit."""
    assert str(resolve(content, Platform.parse(platform)).manifest_digest) == expected.digest


@pytest.mark.parametrize(
    ("content", "platform", "message"),
    [
        (listed((OTHER, on(HERE, os_features=["erofs", "x"]))), HERE, "linux/amd64 with erofs x"),
        (listed((OTHER, on(HERE, os_features="erofs"))), HERE, "os.features is not a JSON array"),
        (listed((OTHER, on(HERE) | {"artifactType": PROOF})), HERE, "an index without any"),
        (listed((CHART, on(HERE)), (ARM, {})), HERE, "artifact of type 'application/vnd.cncf.helm"),
        (listed((SIMPLE, on("linux/amd64/v2"))), HERE, "it has: linux/amd64/v2"),
        (index(V7), "linux/arm/v6", "it has: linux/arm/v7"),
        (index(V7), "linux/arm64", "it has: linux/arm/v7"),
        (bare(ARM), HERE, "for linux/arm64, not for linux/amd64"),
        (bare(ARM, V7), HERE, "no manifest for linux/amd64"),
        (bare(*(index(ARM, *[index(ARM)] * n) for n in range(12))), HERE, "more than 64 manifests"),
    ],
)
def test_no_choice(content: Content, platform: str, message: str) -> None:
    """Where no image fits, the error says what there is; the search has an end."""
    with pytest.raises(ImageError, match=message):
        resolve(content, Platform.parse(platform))


def test_nothing_else_is_read() -> None:
    """Only the index, the platform's manifest and its config are read."""
    content = index(ARM, SIMPLE, attestation=True)
    source = Memory(content)
    read_image(source, Descriptor.parse(content.descriptor, "top"), AMD64)
    assert source.read == [content.digest, SIMPLE.digest, SIMPLE.document["config"]["digest"]]


def deep(levels: int) -> Content:
    """Return an image below this many indexes."""
    content = SIMPLE
    for _ in range(levels):
        content = index(content)
    return content


EMPTY = "application/vnd.oci.empty.v1+json"
CONFIG = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(LAYER.plain)]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (index(ARM), "no manifest for linux/amd64 .it has: linux/arm64"),
        (index(), "an index without any"),
        (index(attestation=True), "an index without any"),
        (ARM, "for linux/arm64, not for linux/amd64"),
        (deep(5), "nests indexes"),
        (changed(SIMPLE, schemaVersion=1), "schema version"),
        (changed(SIMPLE, schemaVersion=None), "schema version"),
        (changed(SIMPLE, mediaType=f"{OCI}index.v1+json"), "calls itself"),
        (changed(SIMPLE, manifests=[]), "at once"),
        (changed(SIMPLE, layers=None), "layers is not a JSON array"),
        (changed(SIMPLE, layers={}), "layers is not a JSON array"),
        (changed(SIMPLE, layers=[1]), r"layers\[0\] is not a JSON object"),
        (changed(SIMPLE, layers=[{}]), r"layers\[0\] has no mediaType"),
        (changed(SIMPLE, config=None), "config is not a JSON object"),
        (changed(SIMPLE, layers=[]), "names 1 layers, its manifest 0"),
        (changed(SIMPLE, config=describe("application/vnd.wasm", b"")), "artifact of type"),
        (changed(index(SIMPLE), manifests="x"), "manifests is not a JSON array"),
        (configured(b"{"), "not JSON"),
        (configured(b"\xff"), "not JSON"),
        (configured(b"[" * 100_000), "not JSON"),
        (configured(b"null"), "not a JSON object"),
        (configured({}), "rootfs is not a JSON object"),
        (configured({"rootfs": {}}), "diff_ids is not a JSON array"),
        (configured({"rootfs": {"type": "base+layers"}}), "unknown type 'base.layers'"),
        (configured({"rootfs": {"diff_ids": [1]}}), r"diff_ids\[0\].*not a digest"),
        (configured({"rootfs": {"diff_ids": ["md5:12"]}}), r"diff_ids\[0\].*not a digest"),
        (configured({**CONFIG, "architecture": "s390x"}), "for linux/s390x"),
        (configured({**CONFIG, "os": "windows"}), "for windows/amd64"),
        (configured({**CONFIG, "os": ["linux"]}), "not text"),
        (configured({**CONFIG, "os": "a\n\x1b[2J"}), r"for a\\n\\x1b\[2j/amd64, not for"),
        (changed(SIMPLE, mediaType=["x"]), "mediaType that is not text"),
        (changed(SIMPLE, mediaType="text/plain"), "calls itself 'text/plain'"),
        (changed(SIMPLE, artifactType="application/vnd.x"), "artifact of type 'application/vnd.x'"),
        (
            changed(SIMPLE, config=describe(EMPTY, b"{}")),
            "artifact of type .application.vnd.oci.empty",
        ),
        (
            changed(SIMPLE, config=describe("application/octet-stream", b"{}")),
            "artifact of type 'application/octet-stream'",
        ),
        (configured({**CONFIG, "config": [1]}), r"\.config is not a JSON object"),
    ],
)
def test_refused(content: Content, message: str) -> None:
    """A document that is not valid, or not this platform's, is refused with its place."""
    with pytest.raises(ImageError, match=message):
        resolve(content)


DOCKER = image(LAYER, docker=True)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("config_type", [*GENERIC, "text/html", None])
def test_old_configs(config_type: str | None, typed: bool) -> None:
    """A Docker manifest is an image whatever it calls its config, as registries of 2015 do."""
    config = {**DOCKER.document["config"], "mediaType": config_type}
    if config_type is None:
        del config["mediaType"]
    content = changed(DOCKER, config=config)
    if not typed:
        content = changed(content, mediaType=None)
    assert str(resolve(content).manifest_digest) == content.digest


@pytest.mark.parametrize("content", [SIMPLE, DOCKER, index(ARM, SIMPLE)])
@pytest.mark.parametrize("described", GENERIC)
def test_documents_without_a_type(content: Content, described: str) -> None:
    """A document's shape says what it is where nothing else does."""
    bare_content = changed(content, mediaType=None)
    top = {**bare_content.descriptor, "mediaType": described}
    found = read_image(Memory(bare_content), Descriptor.parse(top, "top"), AMD64)
    assert str(found.digest) == bare_content.digest


SIGNED = {"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []}


@pytest.mark.parametrize(
    "fields",
    [
        SIGNED,
        {**SIGNED, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
        {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
        {"fsLayers": []},
        {"schemaVersion": 1},
        {"schemaVersion": 1, "layers": [], "config": {}},
    ],
)
def test_schema_1(fields: Mapping[str, object]) -> None:
    """Docker's first format is refused by name, signed or not, with what to do."""
    with pytest.raises(ImageError, match=r"schema version 1, .*push the image again"):
        resolve(document(fields, {}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mediaType": None}, "no mediaType"),
        ({"mediaType": 7}, "no mediaType"),
        ({"size": None}, "no valid size"),
        ({"size": -1}, "no valid size"),
        ({"size": 1.5}, "no valid size"),
        ({"size": True}, "no valid size"),
        ({"size": "9"}, "no valid size"),
        ({"size": 1 << 50}, "no valid size"),
        ({"digest": None}, "not a digest"),
        ({"digest": "sha256:../../etc/passwd"}, "not a digest"),
        ({"digest": "sha256:" + "A" * 64}, "not a digest"),
        ({"digest": "sha1:" + "a" * 40}, "not a digest"),
        ({"platform": "linux/amd64"}, "not a JSON object"),
        ({"platform": {"os": 1, "architecture": 2}}, "not text"),
        ({"annotations": [1]}, "not a JSON object"),
    ],
)
def test_bad_descriptor(change: dict[str, object], message: str) -> None:
    """A descriptor is checked field by field."""
    with pytest.raises(ImageError, match=f"here.*{message}"):
        Descriptor.parse({**describe(f"{OCI}layer.v1.tar", b""), **change}, "here")


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (f"{OCI}layer.v1.tar", ""),
        (f"{OCI}layer.v1.tar+gzip", "gzip"),
        (f"{OCI}layer.v1.tar+zstd", "zstd"),
        (f"{OCI}layer.nondistributable.v1.tar+gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar", ""),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
    ],
)
def test_compression(media_type: str, compression: str) -> None:
    """A layer's media type says how it is compressed."""
    assert Descriptor.parse(describe(media_type, b""), "here").compression == compression


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", f"{OCI}layer.v1.tar+xz", f"{OCI}config.v1+json"]
)
def test_no_layer(media_type: str) -> None:
    """What is no layer is refused, and told which kinds are read."""
    with pytest.raises(ImageError, match="gzip and zstd"):
        _ = Descriptor.parse(describe(media_type, b""), "here").compression


def test_verify() -> None:
    """Content passes if it is the promised one, and is not too large to be a document."""
    content = b'{"a": 1}'
    wanted = Descriptor.parse(describe("x/y", content), "here")
    assert wanted.verify(content) == content
    with pytest.raises(VerificationError, match="9 bytes, not 8"):
        wanted.verify(content + b" ")
    with pytest.raises(VerificationError, match="other content"):
        wanted.verify(content[::-1])


@pytest.mark.parametrize("value", ["{}", "[]", "1"])
def test_values(value: str) -> None:
    """Many values of few bytes are refused before they take memory."""
    usual = f'{{"history": [{",".join([value] * (VALUES_MAX // 3))}]}}'
    assert len(parse_json(usual.encode(), "here")["history"]) == VALUES_MAX // 3
    many = f'{{"history": [{",".join([value] * VALUES_MAX)}]}}'
    tracemalloc.start()
    try:
        with pytest.raises(LimitError, match="here has more than 100000 values"):
            parse_json(many.encode(), "here")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(many)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"{} x", b"", b"[]", b"\xff{}", b'{"a": ' + b"9" * 10_000 + b"}"]
)
def test_json(content: bytes) -> None:
    """What is no JSON object is refused."""
    with pytest.raises(ImageError, match="here"):
        parse_json(content, "here")
