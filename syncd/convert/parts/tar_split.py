"""Tar-split data: what a tar consists of beside the contents of its files.

Pure.  The bytes of headers and padding, and the sizes of the contents between them, in this order,
are the tar, byte for byte.

Source: https://github.com/vbatts/tar-split/blob/master/tar/storage/entry.go
"""

from __future__ import annotations

import binascii
from collections.abc import Generator, Iterator

from syncd.convert.parts.json_text import pieces
from syncd.convert.parts.positions import Stretch
from syncd.errors import ImageError, VerificationError
from syncd.limits import Hold
from syncd.oci import Digest, parse_array

LINE_MAX = 8 << 20
"""Bytes of a line at most: tar-split writes the padding behind an archive as one entry."""

_FILE, _RAW = 1, 2
_LARGEST = 1 << 40


def segments(stored: bytes, place: Stretch, digest: Digest, hold: Hold) -> Generator[bytes | int]:
    """Yield what the tar consists of: raw bytes, or how many bytes of a file's content.

    `hold` is told how much memory reading them takes.  Raise VerificationError for other data than
    the digest says, ImageError for what is none.
    """
    if Digest.of(stored, digest.algorithm) != digest:
        raise VerificationError("they have other content than their digest says")
    for batch in _batches(pieces(stored, place.plain, hold)):
        for entry in parse_array(batch, "a stretch of them"):
            if not isinstance(entry, dict):
                raise ImageError("an entry of them is no object")
            kind = entry.get("type")
            if kind == _RAW:
                yield _bytes(entry.get("payload"))
                continue
            size = entry.get("size", 0)
            if kind != _FILE or type(size) is not int or not 0 <= size <= _LARGEST:
                raise ImageError("an entry of them is of an unknown kind")
            if size:
                yield size


def _bytes(payload: object) -> bytes:
    if not payload:
        return b""
    try:
        return binascii.a2b_base64(payload, strict_mode=True)  # type: ignore[arg-type] # checked
    except (ValueError, TypeError) as exc:
        raise ImageError(f"an entry of them is no base64: {exc!s:.100}") from exc


def _batches(source: Iterator[bytes]) -> Iterator[bytes]:
    """Yield whole lines of a text that comes in pieces, with commas between them."""
    rest = b""
    for piece in source:
        lines, line, begin = piece.rpartition(b"\n")
        if line:
            yield (rest + lines).replace(b"\n", b",")
            rest = begin
        else:
            rest += piece
        if len(rest) > LINE_MAX:
            raise ImageError(f"a line of them is longer than {LINE_MAX} bytes")
    if rest:
        yield rest
