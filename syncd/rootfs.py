"""A planned tree written as a zstd-compressed tar: the `rootfs` template.

The stream is cut into independent zstd frames, which any zstd reader takes as one file
(RFC 8878, section 3).  Frames are compressed side by side, yet the output depends only on the
plan, the contents and the level, never on how many threads there were or who was faster.  Where
a frame ends is decided by names and sizes, so that a change in one file moves no other frame.

Memory is bounded by a few frames, whatever the size of a file or of the image.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO
from zlib import crc32

import zstandard

from syncd.errors import StorageError
from syncd.limits import Allowance
from syncd.member import BLOCK, END_OF_ARCHIVE, header, padding
from syncd.overlay import Entry
from syncd.reference import Digest

FRAME_MIN = 1 << 20
FRAME_MAX = 4 << 20
_WRITE_BACK = 16 << 20  # bytes of output after which the disk is set to work
_CUT_EVERY = 64  # members, on average, once a frame has its least size


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: compressed and plain size in bytes, and the digest of the file.

    `diff_id` is the digest of the plain tar when it was asked for.
    """

    size: int
    plain_size: int
    digest: Digest
    diff_id: Digest | None = None


Piece = bytes | tuple[int, int, int]
"""Part of the tar: literal bytes, or a stretch of a file as (fd, offset, length).

A stretch of fd -1 is zeros.
"""


class _Frame:
    """The recipe of one frame."""

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


def write(
    plan: Iterable[Entry],
    contents: Sequence[int],
    output: BinaryIO,
    *,
    level: int,
    allowance: Allowance,
    advance: Callable[[int], None],
    threads: int | None = None,
    with_diff_id: bool = False,
) -> Written:
    """Write the plan as `.tar.zst` to `output`, from where it stands.

    `contents` holds, per layer, an open file descriptor of its plain tar.  `level` is zstd's, 1
    to 19.  `advance` is told the plain bytes that were written.  Raise LimitError when the files
    are larger together than allowed, StorageError when a disk fails.
    """
    threads = threads or min(os.cpu_count() or 1, 4)
    workshop = threading.local()
    whole, plain = hashlib.sha256(), hashlib.sha256()
    size = plain_size = on_its_way = 0

    def compress(frame: _Frame) -> tuple[bytes, bytes]:
        if not hasattr(workshop, "engine"):
            workshop.engine = zstandard.ZstdCompressor(level=level, write_checksum=True)
            workshop.buffer = memoryview(bytearray(FRAME_MAX))
        buffer = workshop.buffer[: frame.size]
        frame.fill(buffer)
        return workshop.engine.compress(buffer), bytes(buffer) if with_diff_id else b""

    def finish(frame: _Frame, result: Future[tuple[bytes, bytes]]) -> None:
        nonlocal size, plain_size, on_its_way
        compressed, original = result.result()
        try:
            output.write(compressed)
            if size - on_its_way > _WRITE_BACK:
                output.flush()
                # Linux begins to write dirty pages back on this advice (mm/fadvise.c), so that
                # the flush at the end finds little to wait for.
                os.posix_fadvise(output.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                on_its_way = size
        except OSError as exc:
            raise StorageError(
                f"the template cannot be written: {exc.strerror}", "make room on its disk"
            ) from exc
        whole.update(compressed)
        plain.update(original)
        size += len(compressed)
        plain_size += frame.size
        advance(frame.size)

    under_way: deque[tuple[_Frame, Future[tuple[bytes, bytes]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="compress") as pool:
        try:
            for frame in _frames(_pieces(plan, contents, allowance)):
                under_way.append((frame, pool.submit(compress, frame)))
                if len(under_way) > threads + 1:
                    finish(*under_way.popleft())
            while under_way:
                finish(*under_way.popleft())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    diff_id = Digest("sha256", plain.hexdigest()) if with_diff_id else None
    return Written(size, plain_size, Digest("sha256", whole.hexdigest()), diff_id)


def _pieces(
    plan: Iterable[Entry], contents: Sequence[int], allowance: Allowance
) -> Iterator[Piece | None]:
    """Yield the tar piece by piece, and None where a frame may end."""
    for member, layer in plan:
        allowance.take(member.size)
        if member.size >= FRAME_MIN or crc32(member.name) % _CUT_EVERY == 0:
            yield None
        yield header(member)
        at = 0
        for offset, length, place in member.extents:
            if offset > at:
                yield -1, 0, offset - at
            yield contents[layer], place, length
            at = offset + length
        if at < member.size:
            yield -1, 0, member.size - at
        if member.size % BLOCK:
            yield padding(member.size)
    yield END_OF_ARCHIVE


def _frames(pieces: Iterable[Piece | None]) -> Iterator[_Frame]:
    """Cut the tar into frames of FRAME_MIN to FRAME_MAX bytes, but for the last."""
    frame = _Frame()
    for piece in pieces:
        if piece is None and frame.size >= FRAME_MIN:
            yield frame
            frame = _Frame()
        rest = piece
        while rest is not None:
            rest = frame.add(rest)
            if rest is not None:
                yield frame
                frame = _Frame()
    yield frame


def _read_into(fd: int, offset: int, buffer: memoryview) -> None:
    while buffer:
        got = os.preadv(fd, [buffer], offset)
        if not got:
            raise StorageError("a spool file is shorter than it was when it was written")
        buffer = buffer[got:]
        offset += got
