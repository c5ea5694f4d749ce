"""The table of contents of a layer: which parts the contents of its files are made of.

Pure.  Only what a tar is put together from is read: sizes, digests and places.  What the table says
of names, modes and owners means nothing here, since the tar itself says it.

Source: https://github.com/containers/storage/blob/main/pkg/chunked/internal/minimal/compression.go
(`TOC`, `FileMetadata`), and compressor.go beside it for the order of the entries.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from syncd.convert.parts.json_text import JsonText, pieces
from syncd.convert.parts.positions import Positions
from syncd.errors import ImageError, VerificationError
from syncd.limits import Hold
from syncd.oci import Digest

ENTRIES_MAX = 1_000_000
"""Entries of a layer at most, with or without a content."""
PARTS_MAX = 200_000
"""Parts of a layer at most; one of 200 MiB has about ten thousand."""
PART_MAX = 1 << 31
"""Bytes of a part with a digest at most; zeros may be more."""
DIGEST = 32
"""Bytes of a part's digest, sha256."""
PART = 80
"""Bytes of memory that a part of a table takes, about."""

_ZEROS = f"sha256:{'0' * 2 * DIGEST}"
_STEP = 256  # parts whose memory is counted at a time
_LARGEST = 1 << 40
_VERSION = 1
_HEX = re.compile(r"sha256:[0-9a-f]{64}")


class Part(NamedTuple):
    """One part of a file's content: sha256 of its plain bytes, and their number.

    Its zstd frames lie from `offset` to `end` of the blob.
    """

    digest: bytes
    size: int
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Table:
    """The parts of all files that have a content, in the order of the tar, column by column.

    Part by part: `digests` are DIGEST bytes each, `sizes` plain bytes, and the zstd frames lie from
    `offsets` to `ends` of the blob.  A part without frames is zeros; so is each byte of its
    digest, and of no other part's.
    File by file: the parts of a file end before the number in `file_ends`; `file_sizes` are bytes.
    """

    digests: bytes
    sizes: array[int]
    offsets: array[int]
    ends: array[int]
    file_ends: array[int]
    file_sizes: array[int]
    tar_split: Digest

    def digest(self, nth: int) -> bytes:
        """Return the digest of a part."""
        return self.digests[nth * DIGEST : (nth + 1) * DIGEST]

    def is_zeros(self, nth: int) -> bool:
        """Tell whether a part is zeros."""
        return self.offsets[nth] == self.ends[nth]

    def part(self, nth: int) -> Part:
        """Return a part that is no zeros."""
        return Part(self.digest(nth), self.sizes[nth], self.offsets[nth], self.ends[nth])


def parse(stored: bytes, positions: Positions, hold: Hold) -> Table:
    """Read a table as it lies in the blob.

    Raise VerificationError for other bytes than the annotations promise, ImageError for what is no
    table, or goes beyond the bounds.  `hold` is told how much memory the table takes.
    """
    if Digest.of(stored, positions.checksum.algorithm) != positions.checksum:
        raise VerificationError("it has other content than its checksum says")
    files = _Files(positions.table.offset, hold)
    text = JsonText(pieces(stored, positions.table.plain, hold))
    version, digest = None, None
    text.expect("{")
    separator = ","
    while separator == ",":
        key = text.value()
        text.expect(":")
        if key == "entries":
            _read_entries(text, files)
        elif key == "version":
            version = text.value()
        elif key == "tarSplitDigest":
            digest = text.value()
        else:
            text.value()
        separator = text.expect(",", "}")
    if behind := text.next():
        raise ImageError(f"{behind!r} stands behind its end")
    if version != _VERSION:
        raise ImageError(f"it is of the unknown version {version!r:.20}")
    if not isinstance(digest, str) or not _HEX.fullmatch(digest):
        raise ImageError("it names no digest of the tar-split data")
    return files.table(Digest.parse(digest))


def _read_entries(text: JsonText, files: _Files) -> None:
    """Read the entries: an array, or null where there are none, as Go writes it."""
    if text.next() == "n" and text.value() is None:
        return
    for number, entry in enumerate(text.elements()):
        if number == ENTRIES_MAX:
            raise ImageError(f"it has more than {ENTRIES_MAX} entries")
        if not isinstance(entry, dict):
            raise ImageError("an entry of it is no object")
        files.take(entry)
    files.close()


class _Files:
    """The files of a table, entry by entry."""

    def __init__(self, begin_of_table: int, hold: Hold) -> None:
        self._digests = bytearray()
        self._sizes, self._offsets, self._ends = array("Q"), array("Q"), array("Q")
        self._file_ends, self._file_sizes = array("Q"), array("Q")
        self._last = begin_of_table
        self._hold = hold
        self._at = 0  # where the frames end that were named so far
        self._is_zeros = False  # whether the last part is
        self._first = self._left = self._end = 0  # of the file under way

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take the next entry: a file, a further part of the last file, or what has no content."""
        kind, size = entry.get("type"), entry.get("size", 0)
        if kind == "chunk":
            self._add(entry, entry.get("chunkSize", 0), entry.get("chunkDigest"))
            return
        if self._left:
            raise ImageError("a file has fewer bytes of parts than it has itself")
        if kind != "reg" or not size:
            return
        self._finish()
        end = entry.get("endOffset", 0)
        if not type(size) is type(end) is int or not 0 < size <= _LARGEST:
            raise ImageError("a file has no possible size")
        self._left, self._end = size, end
        self._file_sizes.append(size)
        part = entry.get("chunkSize") or size
        self._add(entry, part, entry.get("chunkDigest") or entry.get("digest"))

    def close(self) -> None:
        """Take no more: the last file has to be whole."""
        self._finish()

    def table(self, tar_split: Digest) -> Table:
        """Return all files."""
        return Table(
            bytes(self._digests),
            self._sizes,
            self._offsets,
            self._ends,
            self._file_ends,
            self._file_sizes,
            tar_split,
        )

    def _add(self, entry: Mapping[str, Any], size: object, digest: object) -> None:
        offset, kind = entry.get("offset", 0), entry.get("chunkType", "")
        zeros = kind == "zeros"
        if zeros:
            digest = _ZEROS
        elif kind != "":
            raise ImageError("a part is of an unknown type")
        elif digest == _ZEROS:
            raise ImageError("a part has the digest that stands for zeros")
        if not isinstance(digest, str) or not _HEX.fullmatch(digest):
            raise ImageError("a part has no digest")
        if type(size) is not int or type(offset) is not int:
            raise ImageError("a part lies at no number")
        if not 0 < size <= self._left or not self._at <= offset <= self._end <= self._last:
            raise ImageError("a part lies where it cannot")
        if size > PART_MAX and not zeros:
            raise ImageError(f"a part is larger than {PART_MAX} bytes")
        if len(self._sizes) > self._first:
            self._end_part(offset)
        self._left -= size
        self._at = offset
        self._is_zeros = zeros
        self._digests += bytes.fromhex(digest[7:])
        self._sizes.append(size)
        self._offsets.append(offset)
        self._ends.append(offset if zeros else self._end)
        if len(self._sizes) % _STEP == 1:
            self._hold(_STEP * PART)
            if len(self._sizes) > PARTS_MAX:
                raise ImageError(f"it names more than {PARTS_MAX} parts")

    def _end_part(self, end: int) -> None:
        """End the last part where the next one, or the file, makes it end."""
        if self._is_zeros:
            return
        if end == self._offsets[-1]:
            raise ImageError("a part has no bytes in the blob")
        self._ends[-1] = end

    def _finish(self) -> None:
        """End the file before, all of whose parts have come."""
        if self._left:
            raise ImageError("a file has fewer bytes of parts than it has itself")
        if len(self._file_ends) < len(self._file_sizes):
            self._end_part(self._end)
            self._first = len(self._sizes)
            self._file_ends.append(self._first)
            self._at = self._end
