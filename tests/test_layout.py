"""What `syncd.layout` promises: layouts read with suspicion, blobs that verify themselves."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import ImageError, LimitError, VerificationError
from syncd.layout import Layout, Verified, named
from syncd.limits import Limits
from syncd.manifest import REF_NAME, Descriptor, Reader
from tests.archives import file
from tests.images import describe, digest, image, layer, write_layout

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


class TestVerified:
    """A reader fails instead of ending when its bytes are not the promised ones."""

    @pytest.mark.parametrize("step", [1 << 10, 1 << 20])
    def test_right(self, step: int) -> None:
        """Promised bytes come through."""
        assert read_all(Verified(io.BytesIO(CONTENT), descriptor()), step) == CONTENT

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (CONTENT[:-1], "fewer"),
            (b"", "fewer"),
            (CONTENT + b"x", "more"),
            (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), "other content"),
        ],
    )
    def test_wrong(self, content: bytes, message: str) -> None:
        """Too few, too many or other bytes are refused, before the end is told."""
        with pytest.raises(VerificationError, match=message):
            read_all(Verified(io.BytesIO(content), descriptor()))

    def test_no_more_than_promised_is_read(self) -> None:
        """A source without end is left after one byte too many."""
        source = io.BytesIO(CONTENT * 10)
        with pytest.raises(VerificationError, match="more"):
            Verified(source, descriptor()).read(1 << 20)
        assert source.tell() == len(CONTENT) + 1

    def test_sha512(self) -> None:
        """A blob may be named by its SHA-512."""
        named = {
            **describe(TAR, CONTENT),
            "digest": f"sha512:{hashlib.sha512(CONTENT).hexdigest()}",
        }
        wanted = Descriptor.parse(named, "layer")
        assert read_all(Verified(io.BytesIO(CONTENT), wanted)) == CONTENT
        with pytest.raises(VerificationError):
            read_all(Verified(io.BytesIO(CONTENT[::-1]), wanted))


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
    found = named(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), name, "index")
    assert found.media_type == manifest


def test_layout_of_another_schema() -> None:
    """A layout's index of another schema version is refused."""
    with pytest.raises(ImageError, match="schema version 2"):
        named(b'{"schemaVersion": 1, "manifests": []}', "", "index.json")
