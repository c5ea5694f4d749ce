"""A layer's blob taken apart on its way: members, small contents, and the frames of large ones.

The plain tar as a whole is never kept.  Each large file's content is pressed into frames at once;
what is left, mostly small files, lies plain in a file of the spool.  Whoever gets an `Unpacked`
knows that the tar it came from has the diff_id which the image's config promises.

The bytes move as whole buffers between C libraries that release the interpreter lock
(decompressor, hash, compressor); Python looks at headers only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from syncd.beside import Ahead, Digester, Spare
from syncd.decompress import check_label, decompressed
from syncd.errors import ImageError, SyncdError, VerificationError
from syncd.frames import FRAME_MAX, THREADS, Frames, is_large
from syncd.limits import Budget
from syncd.manifest import Layer, Reader
from syncd.member import BLOCK, Member
from syncd.record import Record
from syncd.spool import Scratch, Spool
from syncd.tar import Parser

_READ = 256 << 10  # bytes of a blob that are read at a time
_SMALL = 1 << 20  # bytes of small contents that are written at a time
_HELD_UNDER_WAY = 8 << 20  # bytes of all layers' chunks that wait to be pressed, about
_NAME = 200  # bytes of memory that a frame's name and place count as


class Unpacked:
    """One layer: its members, and an open file, which it closes, with what is in no frame.

    The members' extents are places in that file.
    """

    def __init__(self, file: BinaryIO, members: list[Member]) -> None:
        self.file = file
        self.fd = file.fileno()
        self.members = members

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self.file.close()


@dataclass(frozen=True, slots=True)
class Means:
    """What the layers of one image are unpacked with, all of them together.

    Frames are pressed by the threads of `pressing`.  The budget is used up by the plain bytes of
    the layers, and by what is held of their members.  `running` are those being unpacked now:
    while they are fewer than the cores, each gets a thread to help with it.
    """

    spool: Spool
    frames: Frames
    pressing: Executor
    budget: Budget
    running: set[Layer] = field(default_factory=set)

    @contextmanager
    def counted(self, layer: Layer) -> Iterator[None]:
        """Count a layer among those that are being unpacked."""
        self.running.add(layer)
        try:
            yield
        finally:
            self.running.discard(layer)


def unpack(blob: Reader, layer: Layer, means: Means, advance: Callable[[int], None]) -> Unpacked:
    """Take `blob` apart, into frames and into a file of the spool.

    `blob` verifies itself when it is read to its end, which this always does.  `advance` is told
    the bytes read from it.  Raise ImageError (and its kinds) for a layer that is not what it
    should be, StorageError for a disk that does not take it, and whatever `blob` raises.
    """
    own = means.budget.share()
    with (
        means.counted(layer),
        Spare(lambda: len(means.running) < THREADS) as thread,
        ExitStack() as on_failure,
    ):
        source = _Counted(Ahead(blob, _READ, thread), advance)
        plain = Digester(thread, layer.diff_id.algorithm)
        scratch = on_failure.enter_context(means.spool.new())
        contents = _Contents(scratch, means, own)
        parser = Parser(own.limits, own.metadata, contents)
        try:
            for chunk in decompressed(source.read, layer.descriptor.compression):
                own.unpacked.take(len(chunk))
                plain.update(chunk)
                parser.feed(chunk)
            source.drain()
            parser.close()
        except ImageError as exc:
            if not isinstance(exc, VerificationError):
                source.drain()
                check_label(source.begin, layer.descriptor)
            raise explained(exc, layer) from exc
        found = plain.digest()
        if found != layer.diff_id:
            raise VerificationError(
                f"layer {layer.descriptor.digest} holds a tar of digest {found}, "
                f"not of diff_id {layer.diff_id}",
                "the image is damaged or was built wrongly; build and push it again",
            )
        contents.close()
        if means.frames.remembered:
            limits = own.limits
            charged = own.unpacked.used, own.metadata.used
            record = Record(parser.members, *charged, limits.path, limits.header)
            means.spool.keep(layer.diff_id, scratch, record)
        on_failure.pop_all()
        return Unpacked(scratch.file, parser.members)


def recall(layer: Layer, means: Means) -> Unpacked | None:
    """Return a layer as it was unpacked before, when it was kept and all its frames are here.

    It must have been kept under bounds no wider than those of now, which only unpacking can check.
    The budget is used up as if it were unpacked now; raise LimitError.
    """
    kept = means.spool.find(layer.diff_id)
    if kept is None:
        return None
    file, record = kept
    with ExitStack() as otherwise:
        otherwise.enter_context(file)
        limits = means.budget.limits
        if record.path > limits.path or record.header > limits.header:
            return None
        if not all(means.frames.has(name) for one in record.members for name in one.frames):
            return None
        means.budget.unpacked.take(record.unpacked)
        means.budget.metadata.take(record.metadata)
        otherwise.pop_all()
        return Unpacked(file, record.members)


class _Contents:
    """Where a layer's contents go: into frames of their own, or into the spool's file.

    The members are told which: a large one's `frames` are filled in as each is pressed.
    """

    def __init__(self, scratch: Scratch, means: Means, budget: Budget) -> None:
        self._scratch = scratch
        self._means = means
        self._budget = budget
        self._small = bytearray()
        self._end = 0
        self._names: list[bytes] = []
        self._nth = self._left = self._room = 0
        self._parts: list[memoryview] = []
        self._under_way: deque[tuple[int, Future[None]]] = deque()
        self._waiting = 0

    def begin(self, member: Member) -> None:
        """Decide where this member's content goes."""
        if is_large(member):
            count = -(-member.size // FRAME_MAX)
            self._budget.metadata.take(count * _NAME)
            self._names = [b""] * count
            self._nth, self._left, self._room = 0, member.size, min(member.size, FRAME_MAX)
            member.frames, member.extents = self._names, ()
        else:
            moved = self._end - member.extents[0][2]
            member.extents = tuple((at, size, place + moved) for at, size, place in member.extents)

    def take(self, content: memoryview) -> None:
        """Take the next bytes of the content."""
        if not self._left:
            self._small += content
            self._end += len(content)
            if len(self._small) >= _SMALL:
                self._flush()
            return
        while content:
            part, content = content[: self._room], content[self._room :]
            self._parts.append(part)
            self._left -= len(part)
            self._room -= len(part)
            if not self._room:
                self._press()

    def close(self) -> None:
        """Ensure that all is where the members say it is."""
        self._flush()
        self._settle(0)

    def _press(self) -> None:
        """Name the frame that is complete, and have it pressed unless it is here."""
        frames, parts = self._means.frames, self._parts
        name = self._names[self._nth] = frames.name(parts)
        self._nth += 1
        self._parts, self._room = [], min(self._left, FRAME_MAX)
        if not frames.has(name):
            held = sum(memoryview(part.obj).nbytes for part in parts)
            self._settle(_HELD_UNDER_WAY // len(self._means.running) - held)
            pressed = self._means.pressing.submit(frames.put, name, parts)
            self._under_way.append((held, pressed))
            self._waiting += held

    def _settle(self, most: int) -> None:
        """Wait while more than so many bytes are under way; raise what pressing them raised."""
        while self._under_way and self._waiting > most:
            held, pressed = self._under_way.popleft()
            self._waiting -= held
            pressed.result()

    def _flush(self) -> None:
        self._scratch.append(self._small)
        self._small = bytearray()


class _Counted:
    """A blob that tells how far it was read, and remembers how it began."""

    def __init__(self, source: Ahead, advance: Callable[[int], None]) -> None:
        self.begin = b""
        self._source = source
        self._advance = advance

    def read(self) -> bytes:
        data = self._source.read()
        self.begin = self.begin or data[:BLOCK]
        self._advance(len(data))
        return data

    def drain(self) -> None:
        """Read to the end, so that the blob as a whole is verified."""
        while self.read():
            pass


def explained(exc: SyncdError, layer: Layer) -> SyncdError:
    """Return a fault found in a layer as one that says which layer it was."""
    return type(exc)(f"layer {layer.descriptor.digest}: {exc.what}", exc.hint)
