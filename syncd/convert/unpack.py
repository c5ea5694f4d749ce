"""Takes a layer's blob apart while it is read: members, small contents, frames of large contents.

The plain tar as a whole is never kept.  Each large file's content is compressed into frames at
once; what is left, mostly small files, is written plain to a scratch file.  An `Unpacked` is only
returned when the tar has the diff_id that the image's config promises.

The bytes move as whole buffers between C libraries that release the interpreter lock
(decompressor, hash, compressor); Python looks at headers only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Self

from syncd.convert.background import Digester, Helper, ReadAhead
from syncd.convert.capacity import FRAME
from syncd.convert.decompress import Chunk, check_label, decompressed
from syncd.convert.frame_store import THREADS, FrameStore
from syncd.convert.layer_record import LayerRecord
from syncd.convert.scratch import ScratchFile, ScratchSpace
from syncd.convert.zstd_windows import Windows
from syncd.errors import ImageError, SyncdError, VerificationError
from syncd.limits import Budget, Hold
from syncd.oci import Layer, Reader
from syncd.tar import Member, Parser

_READ = 256 << 10  # bytes of a blob that are read at a time
_SMALL = 1 << 20  # bytes of small contents that are written at a time
_HELD_UNDER_WAY = 8 << 20  # bytes of all layers' chunks that wait to be compressed, about
_LAYER = 8 << 20  # bytes of memory for a layer's chunks on their way: read, plain, and digested
_NAME = 200  # bytes of memory that a frame's name and place count as


SayParts = Callable[[Sequence[Member]], bytes]
"""Returns what is kept with a layer to find its parts by, once its members are where they stay."""


class Unpacked:
    """One layer: its members, and an open file, which it closes, of the contents without frames.

    The extents of the members are places in that file.
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
        """Close the file."""
        self.file.close()


@dataclass(frozen=True, slots=True)
class UnpackResources:
    """What the layers of one image are unpacked with, all of them together.

    Frames are compressed by the threads of `compressing`.  The budget is used up by the plain
    bytes of the layers, and by what is held of their members.  `running` are the layers that are
    being unpacked now: while they are fewer than the cores, each gets a thread to help with it.  A
    layer waits for its bytes in a context of `waiting`.  Of all layers one at a time, which has
    `long_window`, has a long zstd window.
    """

    scratch: ScratchSpace
    frames: FrameStore
    compressing: Executor
    budget: Budget
    running: set[Layer] = field(default_factory=set)
    long_window: threading.Lock = field(default_factory=threading.Lock)
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext

    @contextmanager
    def counted(self, layer: Layer) -> Iterator[None]:
        """Count a layer among those that are being unpacked."""
        self.running.add(layer)
        try:
            yield
        finally:
            self.running.discard(layer)


def unpack(
    blob: Reader,
    layer: Layer,
    resources: UnpackResources,
    advance: Callable[[int], None],
    say_parts: SayParts | None = None,
) -> Unpacked:
    """Take `blob` apart, into frames and into a scratch file.

    `blob` verifies itself when it is read to its end, which this always does.  `advance` is told
    how many bytes were read.  What `say_parts` says at the end is kept with the layer.  Raise
    ImageError (and its kinds) for a layer that is not what it should be, StorageError for a disk
    that does not take it, and whatever `blob` raises.
    """
    own = resources.budget.share()
    with (
        _Unpacking(layer, resources, own) as unpacking,
        Windows(own.hold, resources.long_window) as windows,
    ):
        source = ReadAhead(blob, _READ, unpacking.helper, advance, resources.waiting)
        try:
            unpacking.feed(decompressed(source.read, layer.descriptor.compression, windows))
            source.drain()
            unpacking.end()
        except ImageError as exc:
            if not isinstance(exc, VerificationError):
                source.drain()
                check_label(source.begin, layer.descriptor)
            raise explained(exc, layer) from exc
        return unpacking.unpacked(say_parts)


def unpack_plain(
    chunks: Iterator[Chunk],
    layer: Layer,
    resources: UnpackResources,
    own: Budget,
    say_parts: SayParts,
) -> Unpacked:
    """Do as `unpack` with the chunks of a tar that was put together; `own` is its budget.

    Raise what `chunks` raises, too.
    """
    with _Unpacking(layer, resources, own) as unpacking:
        unpacking.feed(chunks)
        unpacking.end()
        return unpacking.unpacked(say_parts)


class _Unpacking:
    """One layer on its way from a plain tar to an `Unpacked`."""

    def __init__(self, layer: Layer, resources: UnpackResources, own: Budget) -> None:
        self.helper = Helper("helper", lambda: len(resources.running) < THREADS)
        self._layer = layer
        self._resources = resources
        self._own = own
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._resources.counted(self._layer))
            stack.enter_context(_held(self._own.hold, _LAYER))
            self._on_failure = stack.enter_context(ExitStack())
            stack.enter_context(self.helper)
            self._plain = Digester(self.helper, self._layer.diff_id.algorithm)
            self._scratch = self._on_failure.enter_context(self._resources.scratch.new())
            self._contents = _Contents(self._scratch, self._resources, self._own)
            self._parser = Parser(
                self._own.limits, self._own.metadata, self._contents, self._own.hold
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def feed(self, chunks: Iterator[Chunk]) -> None:
        """Take the tar apart."""
        for chunk in chunks:
            self._own.unpacked.take(len(chunk))
            self._plain.update(chunk)
            self._parser.feed(chunk)
            del chunk  # before the next one takes as much

    def end(self) -> None:
        """Hear that the tar ended."""
        self._parser.close()

    def unpacked(self, say_parts: SayParts | None) -> Unpacked:
        """Return the layer, and keep it; raise VerificationError for another tar than promised."""
        layer, own, members = self._layer, self._own, self._parser.members
        found = self._plain.digest()
        if found != layer.diff_id:
            raise VerificationError(
                f"layer {layer.descriptor.digest} holds a tar of digest {found}, "
                f"not of diff_id {layer.diff_id}",
                "the image is damaged or was built wrongly; build and push it again",
            )
        self._contents.close()
        frames = self._resources.frames
        if frames.remembered:
            limits = own.limits
            parts = say_parts(members) if say_parts else b""
            record = LayerRecord(
                members,
                own.unpacked.used,
                own.metadata.used,
                limits.path.maximum,
                limits.header.maximum,
                parts,
            )
            self._resources.scratch.keep(layer.diff_id, self._scratch, record)
        self._on_failure.pop_all()
        return Unpacked(self._scratch.file, members)


def recall(layer: Layer, resources: UnpackResources) -> Unpacked | None:
    """Return a layer that was unpacked and kept before, if the store has all its frames.

    None is returned, too, when the layer was kept under wider bounds than those of now, because
    only unpacking can check these bounds.  The budget is used up as if the layer were unpacked now;
    raise LimitError.
    """
    counted = 0

    def hold(amount: int) -> None:
        nonlocal counted
        resources.budget.hold(amount)
        counted += amount

    with ExitStack() as otherwise:
        otherwise.callback(lambda: resources.budget.hold(-counted))
        kept = resources.scratch.find(layer.diff_id, hold)
        if kept is None:
            return None
        file, record = kept
        otherwise.enter_context(file)
        limits = resources.budget.limits
        if record.path > limits.path.maximum or record.header > limits.header.maximum:
            return None
        if not all(
            resources.frames.has(name) for member in record.members for name in member.frames
        ):
            return None
        resources.budget.unpacked.take(record.unpacked)
        resources.budget.metadata.take(record.metadata)
        otherwise.pop_all()
        return Unpacked(file, record.members)


class _Contents:
    """Puts a layer's contents into frames of their own, or into the scratch file.

    Sets the `frames` of a large member, name by name as the frames fill up, and the `extents` of
    a small member.
    """

    def __init__(self, scratch: ScratchFile, resources: UnpackResources, budget: Budget) -> None:
        self._scratch = scratch
        self._resources = resources
        self._sizes = resources.frames.sizes
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
        if self._sizes.is_large(member):
            count = -(-member.size // self._sizes.largest)
            self._budget.metadata.take(count * _NAME)
            self._budget.hold(count * FRAME)
            self._names = [b""] * count
            self._nth, self._left, self._room = (
                0,
                member.size,
                min(member.size, self._sizes.largest),
            )
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
                self._compress()

    def close(self) -> None:
        """Write what is left, and wait until all frames are stored."""
        self._flush()
        self._settle(0)

    def _compress(self) -> None:
        """Name the frame that is complete, and have it compressed unless the store has it."""
        frames, parts = self._resources.frames, self._parts
        name = self._names[self._nth] = frames.name(parts)
        self._nth += 1
        self._parts, self._room = [], min(self._left, self._sizes.largest)
        if not frames.has(name):
            held = sum(memoryview(part.obj).nbytes for part in parts)
            self._settle(_HELD_UNDER_WAY // len(self._resources.running) - held)
            compressed = self._resources.compressing.submit(frames.put, name, parts)
            self._under_way.append((held, compressed))
            self._waiting += held

    def _settle(self, bound: int) -> None:
        """Wait while more than `bound` bytes are under way; raise what compressing them raised."""
        while self._under_way and self._waiting > bound:
            held, compressed = self._under_way.popleft()
            self._waiting -= held
            compressed.result()

    def _flush(self) -> None:
        self._scratch.append(self._small)
        self._small = bytearray()


@contextmanager
def _held(hold: Hold, amount: int) -> Iterator[None]:
    """Count memory for as long as the context lasts."""
    hold(amount)
    try:
        yield
    finally:
        hold(-amount)


def explained(exc: SyncdError, layer: Layer) -> SyncdError:
    """Return the same error with the layer's digest in its message."""
    return type(exc)(f"layer {layer.descriptor.digest}: {exc.what}", exc.hint)
