"""A planned tree written as a zstd-compressed tar: the `rootfs` template.

The stream is cut into independent zstd frames, which any zstd reader takes as one file
(RFC 8878, section 3).  Frames are compressed side by side, yet the output depends only on the
plan, the contents and the level, never on how many threads there were, who was faster, or which
frames were found in an earlier template.  Where a frame ends is decided by names and sizes, so that
a change in one file moves no other frame: the content of a large file has frames of its own, what
lies between large files is cut where a name says so.

Memory is bounded by a few frames, whatever the size of a file or of the image.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, Self
from zlib import crc32

import zstandard

from syncd.convert.background import Digester, Helper
from syncd.convert.capacity import FRAME
from syncd.convert.frame_store import THREADS, Frame, FrameSizes, FrameStore, FrameTable
from syncd.convert.overlay import Entry
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import StorageError
from syncd.limits import Allowance, Hold, unbounded
from syncd.tar import BLOCK, END_OF_ARCHIVE, encode_header, padding

_CUT_EVERY = 16  # members, on average, once a frame has its least size
_WRITING = 16 << 20  # bytes of memory for frames on their way, plain and stored
_BYTES_UNDER_WAY = 8 << 20  # plain bytes that are compressed, or wait for it, at a time


class Stretch(NamedTuple):
    """Part of the tar: `length` bytes of an open file, from `offset` on."""

    fd: int
    offset: int
    length: int


class Zeros(NamedTuple):
    """Part of the tar: a hole of a sparse file."""

    length: int


class Cut(NamedTuple):
    """A place where a frame ends that has at least `minimum` bytes."""

    minimum: int


class StoredFrame(NamedTuple):
    """Part of the tar: a frame that the frame store has; `size` counts its plain bytes."""

    name: bytes
    size: int


Piece = bytes | Stretch | Zeros
"""Part of the tar whose plain bytes are at hand."""


class _FramePlan:
    """What the plain bytes of one frame, `largest` at most, are put together from."""

    __slots__ = ("_largest", "pieces", "size")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self.pieces: list[Piece] = []
        self.size = 0

    def add(self, piece: Piece) -> Piece | None:
        """Take as much of `piece` as there is room for; return the rest."""
        room = self._largest - self.size
        length = len(piece) if isinstance(piece, bytes) else piece.length
        rest: Piece | None = None
        if length > room:
            piece, rest = _split(piece, room)
            length = room
        self.pieces.append(piece)
        self.size += length
        return rest

    def fill(self, buffer: memoryview) -> None:
        """Assemble the frame's plain bytes."""
        at = 0
        for piece in self.pieces:
            if isinstance(piece, bytes):
                end = at + len(piece)
                buffer[at:end] = piece
            else:
                end = at + piece.length
                if isinstance(piece, Stretch):
                    read_into(piece.fd, piece.offset, buffer[at:end])
                else:
                    buffer[at:end] = bytes(piece.length)
            at = end


def _split(piece: Piece, at: int) -> tuple[Piece, Piece]:
    """Return the first `at` bytes of a piece, and its rest."""
    if isinstance(piece, bytes):
        return piece[:at], piece[at:]
    if isinstance(piece, Zeros):
        return Zeros(at), Zeros(piece.length - at)
    fd, offset, length = piece
    return Stretch(fd, offset, at), Stretch(fd, offset + at, length - at)


class _Batch(NamedTuple):
    """Some frames: their bytes, one behind the other, and plain bytes, if they are wanted."""

    frames: Sequence[Frame]
    stored: bytes
    size: int
    plain: Sequence[bytes]


class _Compressor:
    """Makes or loads the frames of a template on several threads; gives them in their order.

    A thread is given some frames at a time, of as many plain bytes as a frame may have.
    """

    def __init__(self, frames: FrameStore, threads: int, *, keep_plain: bool) -> None:
        self._frames = frames
        self._keep_plain = keep_plain
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._waiting: deque[Future[_Batch]] = deque()
        self._next: list[_FramePlan | StoredFrame] = []
        self._next_size = self._under_way = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, part: _FramePlan | StoredFrame) -> None:
        """Take the next frame of the tar."""
        if self._next_size + part.size > self._frames.sizes.largest:
            self._begin()
        self._next.append(part)
        self._next_size += part.size

    def end(self) -> None:
        """Hear that no more frames come."""
        self._begin()

    def finished(self, bound: int) -> Iterator[_Batch]:
        """Yield the next frames that are finished; wait while more than `bound` bytes are not."""
        while self._waiting and (self._waiting[0].done() or self._under_way > bound):
            finished = self._waiting.popleft().result()
            self._under_way -= finished.size
            yield finished

    def _begin(self) -> None:
        """Give the frames that came to a thread."""
        if self._next:
            self._waiting.append(self._threads.submit(self._make, self._next, self._next_size))
            self._under_way += self._next_size
            self._next, self._next_size = [], 0

    def _make(self, parts: Sequence[_FramePlan | StoredFrame], size: int) -> _Batch:
        frames, contents, plain = [], [], []
        for part in parts:
            if isinstance(part, _FramePlan):
                buffer = self._buffer()[: part.size]
                part.fill(buffer)
                frame, stored = self._frames.make(buffer)
                if self._keep_plain:
                    plain.append(bytes(buffer))
            else:
                frame, stored = self._frames.get(part.name)
                if self._keep_plain:
                    plain.append(self._plain(stored))
            frames.append(frame)
            contents.append(stored)
        return _Batch(frames, b"".join(contents), size, plain)

    def _buffer(self) -> memoryview:
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(bytearray(self._frames.sizes.largest))
        buffer: memoryview = self._own.buffer
        return buffer

    def _plain(self, stored: bytes) -> bytes:
        if not hasattr(self._own, "engine"):
            self._own.engine = zstandard.ZstdDecompressor()
        plain: bytes = self._own.engine.decompress(
            stored, max_output_size=self._frames.sizes.largest
        )
        return plain


def write(
    plan: Iterable[Entry],
    contents: Sequence[int],
    output: BinaryIO,
    *,
    frames: FrameStore,
    allowance: Allowance,
    advance: Callable[[int], None],
    threads: int = THREADS,
    with_diff_id: bool = False,
    hold: Hold = unbounded,
    room: Hold = unbounded,
) -> WrittenTemplate:
    """Write the plan as `.tar.zst` to `output`, from its position on.

    `contents` holds for each layer the descriptor of the open file that its members' extents are
    places in.  `frames` has the frames that members name, and makes the others.  `advance` is told
    how many plain bytes were written, `hold` how much memory is taken, `room` how many bytes are
    going to be written.  Raise LimitError when the files together are larger than allowed,
    StorageError when a disk fails, LostFrameError when a frame of `frames` is lost.
    """
    hold(_WRITING)
    start = end = output.tell()
    plain_size = 0
    written: list[Frame] = []
    with (
        _Compressor(frames, threads, keep_plain=with_diff_id) as compressor,
        Helper("digest") as helper,
        Helper("plain") as plain_helper,
    ):
        whole, plain = Digester(helper), Digester(plain_helper)

        def put(bound: int) -> None:
            nonlocal end, plain_size
            for batch in compressor.finished(bound):
                room(len(batch.stored))
                output.write(batch.stored)
                whole.update(batch.stored)
                for content in batch.plain:
                    plain.update(content)
                hold(FRAME * len(batch.frames))
                written.extend(batch.frames)
                end += len(batch.stored)
                plain_size += batch.size
                advance(batch.size)

        try:
            for part in _parts(plan, contents, allowance, frames.sizes):
                compressor.add(part)
                put(_BYTES_UNDER_WAY)
            compressor.end()
            put(0)
            output.flush()
        except OSError as exc:
            raise StorageError(
                f"the template cannot be written: {exc.strerror}", "make room on its disk"
            ) from exc
        return WrittenTemplate(
            end - start,
            plain_size,
            whole.digest(),
            plain.digest() if with_diff_id else None,
            FrameTable(frames.level, start, tuple(written)) if frames.remembered else None,
        )


def _parts(
    plan: Iterable[Entry], contents: Sequence[int], allowance: Allowance, sizes: FrameSizes
) -> Iterator[_FramePlan | StoredFrame]:
    """Cut the tar into frames, none of which is empty."""
    frame = _FramePlan(sizes.largest)
    for piece in _pieces(plan, contents, allowance, sizes):
        if isinstance(piece, StoredFrame):
            yield piece
        elif isinstance(piece, Cut):
            if frame.size >= piece.minimum:
                yield frame
                frame = _FramePlan(sizes.largest)
        else:
            rest = frame.add(piece)
            while rest is not None:
                yield frame
                frame = _FramePlan(sizes.largest)
                rest = frame.add(rest)
    yield frame


def _pieces(
    plan: Iterable[Entry], contents: Sequence[int], allowance: Allowance, sizes: FrameSizes
) -> Iterator[Piece | StoredFrame | Cut]:
    """Yield the tar piece by piece, and the places where frames end."""
    for member, layer in plan:
        allowance.take(member.size)
        alone = member.frames or member.size >= sizes.large
        if crc32(member.name) % _CUT_EVERY == 0:
            yield Cut(sizes.smallest)
        yield encode_header(member)
        if alone:
            yield Cut(1)
        at = 0
        for name in member.frames:
            yield StoredFrame(name, min(sizes.largest, member.size - at))
            at += sizes.largest
        for offset, length, place in member.extents:
            if offset > at:
                yield Zeros(offset - at)
            yield Stretch(contents[layer], place, length)
            at = offset + length
        if at < member.size:
            yield Zeros(member.size - at)
        if alone:
            yield Cut(1)
        if member.size % BLOCK:
            yield padding(member.size)
    yield END_OF_ARCHIVE


def read_into(fd: int, offset: int, buffer: memoryview) -> None:
    """Fill the buffer from a scratch file's bytes at `offset`; raise StorageError."""
    while buffer:
        try:
            got = os.preadv(fd, [buffer], offset)
        except OSError as exc:
            raise StorageError(f"a scratch file cannot be read: {exc.strerror}") from exc
        if not got:
            raise StorageError("a scratch file is shorter than it was when it was written")
        buffer = buffer[got:]
        offset += got
