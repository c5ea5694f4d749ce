"""What `oci.layout` promises: layouts are read with suspicion."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import ImageError, LimitError, VerificationError
from syncd.limits import Limits
from syncd.oci.image_name import CONTAINERD_NAME, REF_NAME
from syncd.oci.layout import Layout, tops_of
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.reference import Platform
from syncd.oci.source import open_image
from tests.archives import file
from tests.images import Content, describe, digest, image, layer, write_layout

CONTENT = os.urandom(700_000)
TAR = "application/vnd.oci.image.layer.v1.tar"
OCI = "application/vnd.oci.image."


def descriptor(content: bytes = CONTENT) -> Descriptor:
    """Return the descriptor of a blob."""
    return Descriptor.parse(describe(TAR, content), "layer")


def read_all(reader: Reader, step: int = 64 << 10) -> bytes:
    """Read to the end and once more, as a decompressor does, then close."""
    data = b""
    try:
        while chunk := reader.read(step):
            data += chunk
        assert reader.read(step) == b""
    finally:
        reader.close()
    return data


class TestLayout:
    """A layout is a source that trusts nothing it holds."""

    @pytest.mark.parametrize(
        ("names", "asked", "found"),
        [
            (["a"], "", 0),
            (["a"], "a", 0),
            ([""], "", 0),
            (["a", "b"], "b", 1),
            (["v1.0", "latest"], "latest", 1),
        ],
    )
    def test_find(self, names: list[str], asked: str, found: int, tmp_path: Path) -> None:
        """An image is found by its name, or without one when it is the only one."""
        images = [image(layer(file(str(i)))) for i in range(len(names))]
        write_layout(tmp_path, dict(zip(names, images, strict=True)))
        assert str(Layout(tmp_path).find(asked).digest) == images[found].digest

    @pytest.mark.parametrize(
        ("names", "asked", "message"),
        [
            (["a", "b"], "", "several images.*a, b"),
            (["a"], "b", "no image 'b'"),
            ([], "", "no image"),
            ([""], "b", "no image 'b'"),
        ],
    )
    def test_not_found(self, names: list[str], asked: str, message: str, tmp_path: Path) -> None:
        """Without the image an error tells which there are."""
        write_layout(tmp_path, {name: image(layer(file(name or "x"))) for name in names})
        with pytest.raises(ImageError, match=message):
            Layout(tmp_path).find(asked)

    @pytest.mark.parametrize(
        ("name", "content", "error"),
        [
            ("oci-layout", None, "no oci-layout file"),
            ("index.json", None, "does not exist"),
            ("index.json", b"{", "not JSON"),
            ("index.json", b"[]", "not a JSON object"),
            ("index.json", b"{}", "not a JSON array"),
            ("index.json", b'{"manifests": [1]}', "not a JSON object"),
            ("index.json", b'{"manifests": [{"digest": "x"}]}', "mediaType"),
            ("index.json", b" " * ((4 << 20) + 1), r"index.json.*limits\.document"),
        ],
    )
    def test_no_layout(self, name: str, content: bytes | None, error: str, tmp_path: Path) -> None:
        """A folder that is no layout, or a damaged one, is refused."""
        write_layout(tmp_path, {"a": image(layer())})
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=error):
            Layout(tmp_path).find("a")

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_unreadable(self, make: Callable[[Path], None], tmp_path: Path) -> None:
        """What is no file is an error, as document and as blob, before it is opened."""
        wanted = descriptor()
        path = tmp_path / "blobs" / "sha256" / wanted.digest.encoded
        path.parent.mkdir(parents=True)
        make(path)
        with pytest.raises(ImageError, match="is not a file"):
            Layout(tmp_path).document(wanted)
        with pytest.raises(ImageError, match="is not a file"):
            Layout(tmp_path).blob(wanted)

    @pytest.mark.parametrize("marker", [b"", b"{}", b'{"imageLayoutVersion": "2.0.0"}', b"[1]"])
    def test_unknown_layout(self, marker: bytes, tmp_path: Path) -> None:
        """A layout of a version that nobody knows is refused."""
        write_layout(tmp_path, {"a": image(layer())})
        (tmp_path / "oci-layout").write_bytes(marker)
        with pytest.raises(ImageError, match="oci-layout"):
            Layout(tmp_path).find("a")

    def test_documents_are_verified(self, tmp_path: Path) -> None:
        """A manifest that was altered, lost or is too large is refused."""
        content = image(layer())
        write_layout(tmp_path, {"a": content})
        path = tmp_path / "blobs" / content.digest.replace(":", "/")
        wanted = Layout(tmp_path).find("a")
        path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
        with pytest.raises(VerificationError, match="other content"):
            Layout(tmp_path).document(wanted)
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(VerificationError, match="bytes"):
            Layout(tmp_path).document(wanted)
        path.write_bytes(bytes(501))
        with pytest.raises(LimitError, match=r"limits\.document"):
            Layout(tmp_path, Limits(document=500)).document(wanted)
        path.unlink()
        with pytest.raises(ImageError, match="does not exist"):
            Layout(tmp_path).document(wanted)

    def test_blob(self, tmp_path: Path) -> None:
        """A blob is read from any offset; a missing one is told by its digest."""
        made = layer(file("a", CONTENT), compression="")
        write_layout(tmp_path, {"a": image(made)})
        wanted = descriptor(made.plain)
        assert read_all(Layout(tmp_path).blob(wanted)) == made.plain
        assert read_all(Layout(tmp_path).blob(wanted, 999)) == made.plain[999:]
        with pytest.raises(ImageError, match=digest(b"other")):
            Layout(tmp_path).blob(descriptor(b"other"))


def entry(media_type: str, name: str = "") -> dict[str, Any]:
    """Return an entry of a layout's index."""
    described = describe(media_type, name.encode())
    return {**described, "annotations": {REF_NAME: name}} if name else described


@pytest.mark.parametrize("name", ["", "v1"])
def test_other_entries_of_a_layout(name: str) -> None:
    """What is no image is passed over in a layout's index, whatever it is called."""
    manifest = f"{OCI}manifest.v1+json"
    entries = [entry("application/xml", "v1"), entry(manifest, "v1"), entry("text/plain")]
    index_json = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    (found,) = tops_of(index_json, name, "index")
    assert found.media_type == manifest


def test_layout_of_another_schema() -> None:
    """A layout's index of another schema version is refused."""
    with pytest.raises(ImageError, match="schema version 2"):
        tops_of(b'{"schemaVersion": 1, "manifests": []}', "", "index.json")


AMD64 = Platform("linux", "amd64")
ARM = image(layer(file("arm")), platform="linux/arm64")
S390X = image(layer(), platform="linux/s390x")
ONE, TWO = image(layer(file("one"))), image(layer(file("two")))
HERE = {"os": "linux", "architecture": "amd64"}
THERE = {"os": "linux", "architecture": "arm64"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}
Entries = tuple[tuple[Content, dict[str, Any]], ...]


def flat(folder: Path, *entries: tuple[Content, dict[str, Any]]) -> str:
    """Write a layout of images with other fields in their entries; return how it is named."""
    for content, _ in entries:
        write_layout(folder, {"": content})
    rows = [{**content.descriptor, **more} for content, more in entries]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": rows}))
    return f"oci:{folder}"


def called(ref: str = "", full: str = "") -> dict[str, Any]:
    """Return the annotations of an entry that has these names."""
    names = {REF_NAME: ref, CONTAINERD_NAME: full}
    return {"annotations": {key: name for key, name in names.items() if name}}


SAME_TAG = (
    (ONE, called("latest", "docker.io/library/one:latest")),
    (TWO, called("latest", "docker.io/library/two:latest")),
)


@pytest.mark.parametrize(
    ("entries", "name", "expected"),
    [
        (SAME_TAG, ":docker.io/library/two:latest", TWO),
        (SAME_TAG, ":two:latest", TWO),
        (SAME_TAG, ":two", TWO),
        (SAME_TAG, f":{TWO.digest}", TWO),
        (SAME_TAG, f":@{TWO.digest}", TWO),
        (SAME_TAG, ":@1", TWO),
        (
            ((ONE, called("quay.io/o/one:v1")), (TWO, called("quay.io/o/two:v1"))),
            ":quay.io/o/two:v1",
            TWO,
        ),
        (((ARM, {"platform": THERE}), (ONE, {"platform": HERE})), "", ONE),
        (
            ((ARM, {"platform": THERE} | called("v1")), (ONE, {"platform": HERE} | called("v1"))),
            ":v1",
            ONE,
        ),
        (((ARM, {}), (ONE, {})), "", ONE),
        (((ARM, called("v1")), (ONE, called("v1"))), ":v1", ONE),
        (((TWO, {"platform": UNKNOWN}), (ONE, {"platform": HERE})), "", ONE),
        (((TWO, {"platform": HERE | {"os.features": ["x"]}}), (ONE, {"platform": HERE})), "", ONE),
        (((ONE, {}), (ONE, {"platform": HERE})), "", ONE),
    ],
)
def test_one_of_several(
    entries: tuple[tuple[Content, dict[str, Any]], ...],
    name: str,
    expected: Content,
    tmp_path: Path,
) -> None:
    """An image of several is found by any name that it has, then by its platform."""
    found = open_image(flat(tmp_path, *entries) + name, AMD64)
    assert str(found.image.manifest_digest) == str(found.image.digest) == expected.digest


@pytest.mark.parametrize(
    ("entries", "name", "message"),
    [
        (SAME_TAG, "", "several images; name one of: docker.io/library/one:latest, docker.io/lib"),
        (SAME_TAG, ":latest", f"several images for linux/amd64; name one of: {ONE.digest}"),
        (SAME_TAG, ":@2", "no image '@2'; it has: docker.io/library/one:latest"),
        (SAME_TAG, ":three", "no image 'three'"),
        (((ONE, {}), (TWO, {})), "", f"several images for linux/amd64; name one of: {ONE.digest}"),
        (((ONE, {"platform": HERE}), (TWO, {"platform": HERE})), "", "several images for"),
        (
            ((ARM, {"platform": THERE}), (ARM, {"platform": UNKNOWN}), (TWO, {"platform": THERE})),
            "",
            "no manifest for linux/amd64",
        ),
        (
            ((ARM, {}), (image(layer(), platform="linux/s390x"), {})),
            "",
            "no manifest for linux/amd64",
        ),
    ],
)
def test_none_of_several(entries: Entries, name: str, message: str, tmp_path: Path) -> None:
    """Where the name is no choice, the error says what to name."""
    with pytest.raises(ImageError, match=message):
        open_image(flat(tmp_path, *entries) + name, AMD64)
