"""What `syncd.manifest` promises: documents become checked values, or an error names the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from syncd.errors import ImageError, VerificationError
from syncd.manifest import Descriptor, Image, parse_json, read_image
from syncd.reference import Platform
from tests.archives import file
from tests.images import Content, describe, digest, document, image, index, layer
from tests.templates import AMD64

OCI = "application/vnd.oci.image."
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


def test_entry_without_platform() -> None:
    """An entry without a platform is taken when it is the only one."""
    bare = changed(index(SIMPLE), manifests=[SIMPLE.descriptor])
    assert str(resolve(bare).manifest_digest) == SIMPLE.digest
    two = changed(index(SIMPLE), manifests=[SIMPLE.descriptor, ARM.descriptor])
    with pytest.raises(ImageError, match="no manifest for linux/amd64"):
        resolve(two)


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


CONFIG = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(LAYER.plain)]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (index(ARM), "no manifest for linux/amd64 .it has: linux/arm64"),
        (index(), "it has: none"),
        (index(attestation=True), "it has: none"),
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
        (configured({**CONFIG, "os": "a\n\x1b[2J"}), r"for a\\n\\x1b\[2J/amd64, not for"),
        (configured({**CONFIG, "config": [1]}), r"\.config is not a JSON object"),
    ],
)
def test_refused(content: Content, message: str) -> None:
    """A document that is not valid, or not this platform's, is refused with its place."""
    with pytest.raises(ImageError, match=message):
        resolve(content)


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


@pytest.mark.parametrize(
    "content", [b"{} x", b"", b"[]", b"\xff{}", b'{"a": ' + b"9" * 10_000 + b"}"]
)
def test_json(content: bytes) -> None:
    """What is no JSON object is refused."""
    with pytest.raises(ImageError, match="here"):
        parse_json(content, "here")
