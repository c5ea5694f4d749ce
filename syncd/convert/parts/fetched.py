"""The parts of a layer that come from the registry, verified one by one.

Source: RFC 8878 (zstd): each part is one frame in the blob.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import zstandard

from syncd.convert.parts.table import Part
from syncd.errors import ImageError, VerificationError
from syncd.oci import Range, Reader

PART_MAX = 16 << 20
"""Bytes of a part that is fetched at most, plain or as it lies in the blob: it is held."""
_READ = 64 << 10  # bytes of a stream that are read at a time


class FetchedParts:
    """The parts that come from the registry: one stream of ranges, read in their order.

    The stream is waited for in the context of `waiting`; `advance` is told how much came.
    """

    def __init__(
        self,
        stream: Reader,
        ranges: Sequence[Range],
        waiting: Callable[[], AbstractContextManager[None]],
        advance: Callable[[int], None],
    ) -> None:
        self._stream = stream
        self._waiting = waiting
        self._advance = advance
        self._ranges = iter(ranges)
        self._came = bytearray()
        self._at = self._end = 0  # in the blob: of the next byte, and behind the range

    def plain(self, part: Part) -> bytes:
        """Return the plain bytes of the next part; raise ImageError where it is another."""
        while part.offset >= self._end:
            self._pass(self._end)
            following = next(self._ranges, None)
            if following is None:
                raise ImageError("a part lies where nothing was fetched")
            self._at, self._end = following.offset, following.offset + following.size
        self._pass(part.offset)
        content = _decompressed(self._take(part.end - part.offset), part.size)
        if hashlib.sha256(content).digest() != part.digest:
            raise VerificationError(f"the part at byte {part.offset} has another digest")
        return content

    def _pass(self, end: int) -> None:
        """Pass over what lies before the byte `end`, a gap of any size, without holding it."""
        while self._at < end:
            self._take(min(end - self._at, _READ))

    def _take(self, size: int) -> bytes:
        while len(self._came) < size:
            with self._waiting():
                data = self._stream.read(_READ)
            if not data:
                raise ImageError("the parts of the blob end early")
            self._advance(len(data))
            self._came += data
        taken = bytes(self._came[:size])
        del self._came[:size]
        self._at += size
        return taken


def _decompressed(stored: bytes, size: int) -> bytes:
    """Return the `size` plain bytes of a part, one frame; raise ImageError where it is another."""
    try:
        if zstandard.frame_content_size(stored) in (-1, size):
            content: bytes = _engine.engine.decompress(stored, max_output_size=size)
            if len(content) == size:
                return content
    except zstandard.ZstdError as exc:
        raise ImageError(f"zstd cannot read a part: {exc}") from exc
    raise ImageError(f"a part does not have the {size} bytes that the table names")


class _Engine(threading.local):
    """A decompressor for each thread that wants one."""

    def __init__(self) -> None:
        self.engine = zstandard.ZstdDecompressor()


_engine = _Engine()
