"""The table of a template's frames, found by reading the template: for one whose table is not here.

Names and digests are taken from the bytes, so whatever the file is, a table of it never leads to
another content.  A new template shall have the bytes that it has without an earlier one, but
neither the level nor the version of zstd stands in a file: so some frames, more and more seldom,
are compressed again, and one that comes out otherwise is refused.

Source: RFC 8878, section 3.1.1, for where a frame ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard
from blake3 import blake3

from syncd.convert.frame_store import Frame, FrameSizes, FrameTable
from syncd.errors import ImageError, StorageError

_FRAMES_MAX = 100_000  # whose rows are held in memory; a template of 64 GiB has half as many
_RLE = 1
_BLOCK_HEADER, _CHECKSUM = 3, 4  # bytes
_LARGEST = FrameSizes().largest
_WINDOW_MAX = 1 << 27  # bytes: what zstd itself takes for the highest level
_STORED_MAX = (
    _LARGEST + (_LARGEST >> 7) + 1024
)  # bytes of a frame: ZSTD_compressBound, and a header
_READ = 4 * _STORED_MAX  # bytes
_HINT = "name a .tar.zst file that syncd made"


def frame_table(template: Path, level: int) -> FrameTable:
    """Return the table of a template that `convert` wrote as a `.tar.zst` file.

    Raise ImageError where the file is none, or was compressed at another level or by another
    version of zstd, and StorageError when it cannot be read.
    """
    engine = zstandard.ZstdCompressor(level=level, write_checksum=True)
    frames: list[Frame] = []
    try:
        for stored, plain in _frames(template):
            if len(frames) == _FRAMES_MAX:
                raise ImageError(f"{template} has more than {_FRAMES_MAX} frames")
            is_compared = len(frames) & (len(frames) + 1) == 0
            if is_compared and engine.compress(plain) != stored:
                raise ImageError(
                    f"{template} was not compressed at level {level} by zstd "
                    f"{'.'.join(map(str, zstandard.ZSTD_VERSION))}, so that its frames are "
                    "not those of a new template",
                    "give --level as it was given then",
                )
            frames.append(Frame(blake3(plain).digest(), len(stored), blake3(stored).digest()))
    except OSError as exc:
        raise StorageError(f"{template} cannot be read: {exc.strerror}") from exc
    return FrameTable(level, 0, tuple(frames))


def write_tables(templates: Sequence[Path], level: int, folder: Path) -> list[tuple[Path, Path]]:
    """Write the tables of templates to files in `folder`; return what `Options.earlier` wants.

    Raise what `frame_table` raises, and StorageError when the folder takes no file.
    """
    places = [(template, folder / f"{nth}.frames") for nth, template in enumerate(templates)]
    for template, place in places:
        table = frame_table(template, level)
        try:
            table.write(place)
        except OSError as exc:
            raise StorageError(f"{place} cannot be written: {exc.strerror}") from exc
    return places


def _frames(template: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield each frame's bytes and plain bytes; raise ImageError where there is no such frame."""
    engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
    if not template.is_file() and template.exists():  # to open a FIFO would wait for a writer
        raise ImageError(f"{template} is no file", _HINT)
    with template.open("rb", buffering=0) as file:
        content, at = b"", 0
        while True:
            if len(content) - at < _STORED_MAX:
                content, at = content[at:], 0
                while len(content) < _READ and (more := file.read(_READ)):
                    content += more
                if not content:
                    return
            try:
                rest = memoryview(content)[at:]
                header = zstandard.get_frame_parameters(rest)
                if not 0 < header.content_size <= _LARGEST or not header.has_checksum:
                    raise ImageError(f"{template} has a frame that no template has", _HINT)
                size = _frame_size(rest, has_checksum=header.has_checksum)
                at += size
                yield bytes(rest[:size]), engine.decompress(rest[:size])
            except (zstandard.ZstdError, IndexError) as exc:
                raise ImageError(
                    f"{template} is not a template of syncd, or is damaged", _HINT
                ) from exc


def _frame_size(content: memoryview, *, has_checksum: bool) -> int:
    """Return the bytes that the frame at the start takes; raise IndexError where it is cut."""
    at, is_last = zstandard.frame_header_size(content), False
    while not is_last:
        header = int.from_bytes(content[at : at + _BLOCK_HEADER], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        at += _BLOCK_HEADER + (1 if kind == _RLE else size)
        if at > len(content):
            raise IndexError("the frame goes on")
    return at + (_CHECKSUM if has_checksum else 0)
