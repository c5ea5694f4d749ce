"""The table that is found by reading a template is the one that was written beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zstandard

from syncd.convert import Options, ScratchSpace, convert, write_tables
from syncd.convert.frame_reader import frame_table
from syncd.convert.frame_store import Frame, FrameStore, FrameTable, Plain
from syncd.errors import ImageError, StorageError
from syncd.formats import Format
from syncd.oci import open_image
from tests.archives import file
from tests.images import Content, image, layer, write_layout

SMALL = layer(*(file(f"small/{n}", b"%d" % n * 999) for n in range(2000)))
LARGE = layer(file("large", os.urandom(3 << 20) + bytes(6 << 20)), file("rle", bytes(100 << 10)))
IMAGE = image(SMALL, LARGE)
REBUILT = image(SMALL, LARGE, layer(file("new", b"new")))


def made(folder: Path, content: Content, **options: object) -> FrameTable:
    """Convert an image to `folder`/template.tar.zst; return the table that the conversion wrote."""
    folder.mkdir()
    opened = open_image(f"oci:{write_layout(folder / 'layout', {'': content})}")
    chosen = {"level": 3, "earlier": (), "table": folder / "table"} | options
    convert(opened, folder / "template.tar.zst", Options(ScratchSpace(folder), **chosen))  # type: ignore[arg-type] # as given
    table = FrameTable.read(folder / "table", 1 << 20)
    assert table is not None
    return table


@pytest.mark.parametrize("level", [1, 3, 10])
def test_table(level: int, tmp_path: Path) -> None:
    """The frames, their names and digests are those that the conversion wrote down."""
    table = made(tmp_path / "made", IMAGE, level=level)
    assert len(table.frames) > 10
    assert frame_table(tmp_path / "made/template.tar.zst", level) == table


def test_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an earlier template the same bytes are made, and what is the same is not compressed."""
    made(tmp_path / "earlier", IMAGE)
    compressed = list[bytes]()
    compress = FrameStore._compress

    def counting(store: FrameStore, name: bytes, plain: Plain) -> tuple[Frame, bytes]:
        compressed.append(name)
        return compress(store, name, plain)

    monkeypatch.setattr(FrameStore, "_compress", counting)
    made(tmp_path / "alone", REBUILT)
    assert len(compressed) > 10
    compressed.clear()
    template = tmp_path / "earlier/template.tar.zst"
    places = write_tables([template], 3, tmp_path)
    made(tmp_path / "built", REBUILT, earlier=places)
    built = (tmp_path / "built/template.tar.zst").read_bytes()
    assert built == (tmp_path / "alone/template.tar.zst").read_bytes()
    assert len(compressed) < 4  # the frame with the new file, and its neighbours


def test_other_level(tmp_path: Path) -> None:
    """A template of another level is refused: its frames would not be those of a new template."""
    made(tmp_path / "made", IMAGE, level=1)
    with pytest.raises(ImageError, match=r"not compressed at level 19 by zstd .*--level"):
        frame_table(tmp_path / "made/template.tar.zst", 19)


PLAIN = zstandard.ZstdCompressor(level=3, write_checksum=True)


@pytest.mark.parametrize(
    "content",
    [
        b"no zstd at all",
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip",
        PLAIN.compress(bytes(3 << 20)),  # larger than any frame of a template
        PLAIN.compress(b"whole") + PLAIN.compress(os.urandom(1000))[:-1],
        PLAIN.compress(b"whole") + PLAIN.compress(os.urandom(300 << 10))[:-5000],
        PLAIN.compress(b"a" * 5000)[:-1] + b"x",  # another checksum
        zstandard.ZstdCompressor(write_content_size=False).compress(b"of unknown size"),
        zstandard.compress(b"without a checksum"),
    ],
    ids=[
        *("text", "skippable", "large", "cut checksum", "cut block", "checksum", "unknown size"),
        "no checksum",
    ],
)
def test_no_template(content: bytes, tmp_path: Path) -> None:
    """What is no template of syncd's is refused with its name."""
    path = tmp_path / "other.tar.zst"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"other\.tar\.zst .*name a \.tar\.zst file"):
        frame_table(path, 3)


def test_oci_format(tmp_path: Path) -> None:
    """A template of the format `oci` is a tar around the frames, which are not looked for."""
    made(tmp_path / "made", IMAGE, format=Format.OCI)
    with pytest.raises(ImageError, match=r"name a \.tar\.zst file"):
        frame_table(tmp_path / "made/template.tar.zst", 3)


def test_no_file(tmp_path: Path) -> None:
    """A FIFO, which would be waited for, and a folder are no templates."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(ImageError, match="is no file"):
            frame_table(path, 3)


def test_missing(tmp_path: Path) -> None:
    """A template that is not there, and a folder that takes no table, are told."""
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        frame_table(tmp_path / "none", 3)
    made(tmp_path / "made", IMAGE)
    with pytest.raises(StorageError, match="cannot be written"):
        write_tables([tmp_path / "made/template.tar.zst"], 3, tmp_path / "none")
