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
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Self
from zlib import crc32

import zstandard

from syncd.beside import Digester, Follower
from syncd.errors import StorageError
from syncd.frames import FRAME_MAX, LARGE, THREADS, Frame, Frames, Table
from syncd.limits import Allowance
from syncd.member import BLOCK, END_OF_ARCHIVE, header, padding
from syncd.overlay import Entry
from syncd.reference import Digest

FRAME_MIN = 128 << 10
"""Bytes that a frame of small files has at least before a name can end it."""
_CUT_EVERY = 16  # members, on average, once a frame has its least size
_BYTES_UNDER_WAY = 8 << 20  # plain bytes that are compressed, or wait for it, at a time


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: compressed and plain size in bytes, and the digest of the file.

    `diff_id` is the digest of the plain tar when it was asked for, `table` says which frames there
    are when that is to be remembered.
    """

    size: int
    plain_size: int
    digest: Digest
    diff_id: Digest | None = None
    table: Table | None = None


Piece = bytes | tuple[int, int, int]
"""Part of the tar: literal bytes, or a stretch of a file as (fd, offset, length).

A stretch of fd -1 is zeros.
"""


class _Recipe:
    """How the plain bytes of one frame are put together."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0

    def add(self, piece: Piece) -> Piece | None:
        """Take as much of `piece` as there is room for; return the rest."""
        room = FRAME_MAX - self.size
        length = len(piece) if isinstance(piece, bytes) else piece[2]
        rest: Piece | None = None
        if length > room:
            if isinstance(piece, bytes):
                piece, rest = piece[:room], piece[room:]
            else:
                fd, offset, _ = piece
                piece, rest = (fd, offset, room), (fd, offset + room, length - room)
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
                fd, offset, length = piece
                end = at + length
                if fd < 0:
                    buffer[at:end] = bytes(length)
                else:
                    _read_into(fd, offset, buffer[at:end])
            at = end


class _Pressed(NamedTuple):
    """A frame that is here already: its name, and the size of its plain bytes."""

    name: bytes
    size: int


class _Made(NamedTuple):
    """A frame, its bytes, and what they hold: the size, and the plain bytes if they are wanted."""

    frame: Frame
    stored: bytes
    size: int
    plain: bytes


class _Press:
    """Makes the frames of a template on several threads, and gives them in their order."""

    def __init__(self, frames: Frames, threads: int, *, keep_plain: bool) -> None:
        self._frames = frames
        self._keep_plain = keep_plain
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compress")
        self._waiting: deque[_Pressed | Future[_Made]] = deque()
        self._under_way = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, part: _Recipe | _Pressed) -> None:
        """Take the next part of the tar."""
        if isinstance(part, _Pressed) and not self._keep_plain:
            self._waiting.append(part)
        else:
            self._waiting.append(self._threads.submit(self._make, part))
            self._under_way += part.size

    def made(self, most: int) -> Iterator[_Made]:
        """Yield the next frames that are made, and wait while more than `most` bytes are not."""
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, _Pressed):
                self._waiting.popleft()
                yield self._make(first)
            elif first.done() or self._under_way > most:
                self._waiting.popleft()
                made = first.result()
                self._under_way -= made.size
                yield made
            else:
                break

    def _make(self, part: _Recipe | _Pressed) -> _Made:
        if isinstance(part, _Pressed):
            frame, stored = self._frames.get(part.name)
            plain = self._plain(stored) if self._keep_plain else b""
        else:
            buffer = self._buffer()[: part.size]
            part.fill(buffer)
            frame, stored = self._frames.make(buffer)
            plain = bytes(buffer) if self._keep_plain else b""
        return _Made(frame, stored, part.size, plain)

    def _buffer(self) -> memoryview:
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(bytearray(FRAME_MAX))
        buffer: memoryview = self._own.buffer
        return buffer

    def _plain(self, stored: bytes) -> bytes:
        if not hasattr(self._own, "engine"):
            self._own.engine = zstandard.ZstdDecompressor()
        plain: bytes = self._own.engine.decompress(stored, max_output_size=FRAME_MAX)
        return plain


def write(
    plan: Iterable[Entry],
    contents: Sequence[int],
    output: BinaryIO,
    *,
    frames: Frames,
    allowance: Allowance,
    advance: Callable[[int], None],
    threads: int = THREADS,
    with_diff_id: bool = False,
) -> Written:
    """Write the plan as `.tar.zst` to `output`, from where it stands.

    `contents` holds, per layer, an open file descriptor that the members' extents are places in;
    `frames` has those that members name, and makes the others.  `advance` is told the plain bytes
    that were written.  Raise LimitError when the files are larger together than allowed,
    StorageError when a disk fails, LostFrameError when one of the frames does.
    """
    start = end = output.tell()
    plain_size = 0
    written: list[Frame] = []
    with (
        _Press(frames, threads, keep_plain=with_diff_id) as press,
        Follower(output.fileno(), start) as whole,
        ThreadPoolExecutor(1, thread_name_prefix="plain") as thread,
    ):
        plain = Digester(thread)

        def put(most: int) -> None:
            nonlocal end, plain_size
            for made in press.made(most):
                output.write(made.stored)
                end += made.frame.size
                if whole.is_behind(end):
                    output.flush()
                    whole.follow(end)
                if with_diff_id:
                    plain.update(made.plain)
                written.append(made.frame)
                plain_size += made.size
                advance(made.size)

        try:
            for part in _parts(plan, contents, allowance):
                press.add(part)
                put(_BYTES_UNDER_WAY)
            put(0)
            output.flush()
        except OSError as exc:
            raise StorageError(
                f"the template cannot be written: {exc.strerror}", "make room on its disk"
            ) from exc
        return Written(
            end - start,
            plain_size,
            whole.digest(end),
            plain.digest() if with_diff_id else None,
            Table(frames.level, start, tuple(written)) if frames.remembered else None,
        )


def _parts(
    plan: Iterable[Entry], contents: Sequence[int], allowance: Allowance
) -> Iterator[_Recipe | _Pressed]:
    """Cut the tar into frames of up to FRAME_MAX bytes; none is empty."""
    recipe = _Recipe()
    for piece in _pieces(plan, contents, allowance):
        if isinstance(piece, _Pressed):
            yield piece
            continue
        if isinstance(piece, int):
            if recipe.size >= piece:
                yield recipe
                recipe = _Recipe()
            continue
        rest = recipe.add(piece)
        while rest is not None:
            yield recipe
            recipe = _Recipe()
            rest = recipe.add(rest)
    yield recipe


def _pieces(
    plan: Iterable[Entry], contents: Sequence[int], allowance: Allowance
) -> Iterator[Piece | _Pressed | int]:
    """Yield the tar piece by piece; a number is where a frame of at least that size ends."""
    for member, layer in plan:
        allowance.take(member.size)
        alone = member.frames or member.size >= LARGE
        if crc32(member.name) % _CUT_EVERY == 0:
            yield FRAME_MIN
        yield header(member)
        if alone:
            yield 1
        at = 0
        for name in member.frames:
            yield _Pressed(name, min(FRAME_MAX, member.size - at))
            at += FRAME_MAX
        for offset, length, place in member.extents:
            if offset > at:
                yield -1, 0, offset - at
            yield contents[layer], place, length
            at = offset + length
        if at < member.size:
            yield -1, 0, member.size - at
        if alone:
            yield 1
        if member.size % BLOCK:
            yield padding(member.size)
    yield END_OF_ARCHIVE


def _read_into(fd: int, offset: int, buffer: memoryview) -> None:
    while buffer:
        try:
            got = os.preadv(fd, [buffer], offset)
        except OSError as exc:
            raise StorageError(f"a spool file cannot be read: {exc.strerror}") from exc
        if not got:
            raise StorageError("a spool file is shorter than it was when it was written")
        buffer = buffer[got:]
        offset += got
