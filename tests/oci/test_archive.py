"""What is read of an OCI archive."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import ImageError, StorageError, VerificationError
from syncd.oci.archive import Archive
from syncd.oci.image import read_image
from syncd.oci.manifest import Descriptor
from syncd.oci.reference import Digest
from tests.archives import file, tar
from tests.convert.test_oci_writer import AMD64, sample
from tests.images import Content, image, index, layer, write_layout


def packed(folder: Path, prefix: str, named: dict[str, Content], **how: Any) -> Path:
    """Write an archive with Python's tarfile, as other tools do: folders too, and any order."""
    layout, archive = write_layout(folder / "source", named), folder / "source.tar"
    with tarfile.open(archive, **({"mode": "w"} | how)) as opened:
        for path in sorted(layout.rglob("*")):
            opened.add(path, f"{prefix}{path.relative_to(layout)}", recursive=False)
    return archive


@pytest.mark.parametrize("prefix", ["", "./"])
def test_names(tmp_path: Path, prefix: str) -> None:
    """Members may start with `./`, and an image is found by its name or for being alone."""
    content, other = sample(), image(layer(file("other")))
    one = Archive(packed(tmp_path, prefix, {"one": content}))
    assert one.find() == one.find("one")
    assert read_image(one, one.find(), AMD64).manifest_digest == Digest.parse(content.digest)
    (tmp_path / "two").mkdir()
    two = Archive(packed(tmp_path / "two", prefix, {"one": content, "other": other}))
    assert two.find("other").digest == Digest.parse(other.digest)
    with pytest.raises(ImageError, match="several images; name one of: one, other"):
        two.find()
    with pytest.raises(ImageError, match="no image 'third'"):
        two.find("third")


def test_index_inside(tmp_path: Path) -> None:
    """An archive of several platforms is read like an index in a registry."""
    inside = index(sample(), sample(platform="linux/arm64"))
    source = Archive(packed(tmp_path, "", {"": inside}))
    assert str(read_image(source, source.find(), AMD64).platform) == "linux/amd64"


@pytest.mark.parametrize(
    ("mode", "compression"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")]
)
def test_compressed(tmp_path: Path, mode: str, compression: str) -> None:
    """A compressed archive is refused with a word on what to do."""
    with pytest.raises(ImageError, match=f"compressed with {compression}.*decompress it"):
        Archive(packed(tmp_path, "", {"": sample()}, mode=mode))


def test_cut(tmp_path: Path) -> None:
    """An archive that ends inside a member is refused."""
    archive = packed(tmp_path, "", {"": sample()})
    whole = archive.read_bytes()
    for size in (700, 1540):  # inside the second header; inside the first content
        archive.write_bytes(whole[:size])
        with pytest.raises(ImageError, match=r"cut short|lacks"):
            Archive(archive).find()


def test_foreign(tmp_path: Path) -> None:
    """What `docker save` writes is named as what it is."""
    archive = tmp_path / "docker.tar"
    with tarfile.open(archive, "w") as opened:
        opened.addfile(tarfile.TarInfo("manifest.json"))
    with pytest.raises(ImageError, match="name it as docker save wrote it: docker-archive:"):
        Archive(archive).find()


def test_wrong_content(tmp_path: Path) -> None:
    """A document with other content than its digest says is refused, one that lacks is named."""
    archive = packed(tmp_path, "", {"": sample()})
    source = Archive(archive)
    top = source.find()
    archive.write_bytes(archive.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion": 3'))
    with pytest.raises(VerificationError):
        source.document(top)
    absent = Descriptor("", Digest.of(b"absent"), 1)
    with pytest.raises(ImageError, match=r"lacks the member blobs/sha256/"):
        source.blob(absent)


def test_archive_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that loses its end while it is looked at is an error, and the end of it."""
    path = tmp_path / "archive"
    path.write_bytes(bytes(4096))
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(ImageError, match="became shorter"):
        Archive(path)


def test_archive_that_goes(tmp_path: Path) -> None:
    """An archive that is deleted while it is read is a StorageError."""
    path = tmp_path / "archive"
    path.write_bytes(tar(file("oci-layout", b"{}"), file("index.json", b"{}")))
    archive = Archive(path)
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        archive.find()
