"""A layer's tar, put together from what is here and from what was fetched.

The tar-split data say what it consists of, the table which parts a file has.  A part that was
fetched has to have its digest; a part that is here had it when its row was written.  Whether the
tar is the right one, its diff_id decides.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import zstandard

from syncd.convert.decompress import Chunk
from syncd.convert.parts.index import Framed, Kept, PartIndex
from syncd.convert.parts.log import PartLog
from syncd.convert.parts.table import Part, Table
from syncd.errors import ImageError, LostFrameError, VerificationError
from syncd.limits import Hold
from syncd.oci import Range, Reader

PART_MAX = 16 << 20
"""Bytes of a part that is fetched at most, plain or as it lies in the blob: it is held."""

SOURCES_MAX = 400_000
"""Places that the contents of a layer come from at most."""
_STEP = 256  # places whose memory is counted at a time
SOURCE = 150
"""Bytes of memory that a source takes, about."""
_CHUNK = 256 << 10  # bytes of the tar that are given out at a time, about
_LARGE = 64 << 10  # bytes that are given out as they are, without a copy
_READ = 64 << 10  # bytes of a stream that are read at a time
_WINDOW = 256 << 10  # bytes of a kept layer that are read at a time
_ZEROS = memoryview(bytes(_CHUNK))


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
            self._take(self._end - self._at)
            following = next(self._ranges, None)
            if following is None:
                raise ImageError("a part lies where nothing was fetched")
            self._at, self._end = following.offset, following.offset + following.size
        self._take(part.offset - self._at)
        content = _decompressed(self._take(part.end - part.offset), part.size)
        if hashlib.sha256(content).digest() != part.digest:
            raise VerificationError(f"the part at byte {part.offset} has another digest")
        return content

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


Source = Kept | Framed | Part | int
"""Where bytes of a file come from: from here, from the registry, or so many zeros."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the content of each file of a table comes from; the parts that are fetched.

    The sources of a file end before the number in `ends`.
    """

    sources: list[Source]
    ends: array[int]
    missing: list[Part]


def plan_of(table: Table, index: PartIndex, hold: Hold) -> Plan:
    """Look which parts of a layer are here; what lies side by side there comes together.

    `hold` is told how much memory the plan takes.
    """
    sources: list[Source] = []
    missing: list[Part] = []
    ends = array("Q")
    first, counted, find = 0, 0, index.find
    for end in table.ends:
        last: Source | None = None
        for part in table.parts[first:end]:
            if not part.digest:
                last = part.size
                sources.append(last)
                continue
            if len(sources) - counted >= _STEP:
                counted = _counted(sources, counted, hold)
            found = find(part.digest, part.size)
            if not found:
                last = part
                missing.append(part)
                sources.append(part)
            for piece in found:
                if (
                    type(last) is type(piece)
                    and last[0] == piece[0]
                    and last.offset + last.size == piece.offset
                ):
                    last = last._replace(size=last.size + piece.size)
                    sources[-1] = last
                else:
                    last = piece
                    sources.append(last)
        first = end
        ends.append(len(sources))
    _counted(sources, counted, hold)
    return Plan(sources, ends, missing)


def _counted(sources: Sequence[Source], counted: int, hold: Hold) -> int:
    """Tell how much memory the sources take that were not counted; return how many are counted."""
    hold(SOURCE * (len(sources) - counted))
    if len(sources) > SOURCES_MAX:
        raise ImageError(f"its parts lie in more than {SOURCES_MAX} places")
    return len(sources)


def assembled(
    table: Table,
    plan: Plan,
    segments: Iterator[bytes | int],
    *,
    index: PartIndex,
    fetched: FetchedParts,
    log: PartLog,
) -> Iterator[Chunk]:
    """Yield the tar; `log` hears where each file lies.

    Raise ImageError where the table and the tar-split data contradict each other, LostFrameError
    where what was here is gone, and whatever fetching raises.
    """
    local = _Local(index)
    held = bytearray()
    given = nth = file = 0
    files = len(table.sizes)
    contents: Iterator[Chunk]
    for segment in segments:
        if isinstance(segment, bytes):
            held += segment
            continue
        if file == files or table.sizes[file] != segment:
            raise ImageError("its table and its tar-split data name other files")
        begin = given + len(held)
        for source in plan.sources[nth : plan.ends[file]]:
            if isinstance(source, int):
                contents = _zeros(source)
            elif isinstance(source, Part):
                contents = iter((fetched.plain(source),))
            else:
                contents = iter((local.content(source),))
            for content in contents:
                if len(content) < _LARGE:
                    held += content
                    continue
                if held:
                    yield held
                    given += len(held)
                    held = bytearray()
                yield content
                given += len(content)
        nth = plan.ends[file]
        log.came(begin)
        file += 1
        if len(held) >= _CHUNK:
            yield held
            given += len(held)
            held = bytearray()
    if file < files:
        raise ImageError("its tar-split data lack files of its table")
    yield held


def _zeros(size: int) -> Iterator[Chunk]:
    for begin in range(0, size, _CHUNK):
        yield _ZEROS[: size - begin]


class _Local:
    """Reads what is here.  One thread uses it: what lies together is read together."""

    def __init__(self, index: PartIndex) -> None:
        self._index = index
        self._frame = b""
        self._plain = memoryview(b"")
        self._layer, self._begin, self._window = -1, 0, memoryview(b"")

    def content(self, place: Kept | Framed) -> memoryview:
        if isinstance(place, Framed):
            if place.frame != self._frame:
                self._plain = memoryview(self._index.frames.plain(place.frame))
                self._frame = place.frame
            content = self._plain[place.offset : place.offset + place.size]
        else:
            begin = place.offset - self._begin
            end = begin + place.size
            if place.layer != self._layer or begin < 0 or end > len(self._window):
                size = max(place.size, _WINDOW)
                self._window = memoryview(self._index.read(place.layer, place.offset, size))
                self._layer, self._begin, begin = place.layer, place.offset, 0
            content = self._window[begin : begin + place.size]
        if len(content) != place.size:
            raise LostFrameError("what was kept for later is shorter than it was")
        return content


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
