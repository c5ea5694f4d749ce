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
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, BinaryIO, Self, cast

import zstandard
from isal import igzip_lib

from syncd.errors import ImageError, SyncdError, VerificationError
from syncd.frames import FRAME_MAX, Frames, is_large
from syncd.limits import Budget
from syncd.manifest import Layer, Reader
from syncd.member import BLOCK, Member
from syncd.record import Record
from syncd.spool import Scratch, Spool
from syncd.tar import Parser

# isal's own stubs call its error an instance.
_GzipError = cast(type[Exception], igzip_lib.IsalError)

_READ = 256 << 10
_PLAIN = 1 << 20
_PLAIN_MIN = 64 << 10
_ZSTD_WINDOW_MAX = 1 << 27  # as the zstd command allows without --long: zstd(1)
_FRAMES_UNDER_WAY = 2  # of one layer that are pressed, or wait for it, while it comes in
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
    the layers, and by what is held of their members.
    """

    spool: Spool
    frames: Frames
    pressing: Executor
    budget: Budget


def unpack(blob: Reader, layer: Layer, means: Means, advance: Callable[[int], None]) -> Unpacked:
    """Take `blob` apart, into frames and into a file of the spool.

    `blob` verifies itself when it is read to its end, which this always does.  `advance` is told
    the bytes read from it.  Raise ImageError (and its kinds) for a layer that is not what it
    should be, StorageError for a disk that does not take it, and whatever `blob` raises.
    """
    compression = layer.descriptor.compression
    source = _Counted(blob, advance)
    hasher = layer.diff_id.hasher()
    own = means.budget.share()
    with ExitStack() as on_failure:
        scratch = on_failure.enter_context(means.spool.new())
        contents = _Contents(scratch, means, own)
        parser = Parser(own.limits, own.metadata, contents)
        try:
            for chunk in _decompressed(source, compression):
                own.unpacked.take(len(chunk))
                hasher.update(chunk)
                parser.feed(chunk)
            source.drain()
            parser.close()
        except (ImageError, _GzipError, zstandard.ZstdError) as exc:
            if not isinstance(exc, VerificationError):
                source.drain()
                _check_label(source.begin, layer)
            raise explained(exc, layer) from exc
        if hasher.hexdigest() != layer.diff_id.encoded:
            raise VerificationError(
                f"layer {layer.descriptor.digest} holds a tar of digest "
                f"{layer.diff_id.algorithm}:{hasher.hexdigest()}, not of diff_id {layer.diff_id}",
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
        self._under_way: deque[Future[None]] = deque()

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
            if len(self._small) >= _PLAIN:
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
        for pressed in self._under_way:
            pressed.result()

    def _press(self) -> None:
        """Name the frame that is complete, and have it pressed unless it is here.

        Wait when too many are under way.
        """
        frames, parts = self._means.frames, self._parts
        name = self._names[self._nth] = frames.name(parts)
        self._nth += 1
        self._parts, self._room = [], min(self._left, FRAME_MAX)
        if frames.has(name):
            return
        if len(self._under_way) == _FRAMES_UNDER_WAY:
            self._under_way.popleft().result()
        self._under_way.append(self._means.pressing.submit(frames.put, name, parts))

    def _flush(self) -> None:
        self._scratch.append(self._small)
        self._small = bytearray()


class _Counted:
    """A reader that tells how far it is, and remembers how it began."""

    def __init__(self, source: Reader, advance: Callable[[int], None]) -> None:
        self.begin = b""
        self._source = source
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(_READ if size < 0 else size)
        self.begin = self.begin or data[:BLOCK]
        self._advance(len(data))
        return data

    def close(self) -> None:
        self._source.close()

    def drain(self) -> None:
        """Read to the end, so that the blob as a whole is verified."""
        while self.read(_READ):
            pass


def _decompressed(source: _Counted, compression: str) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the plain bytes in chunks of bounded size, however well they were compressed.

    Nor are they small, but for the last: a layer may be made of gzip members of a byte each, and
    whoever holds a part of a chunk holds the whole.
    """
    if compression == "gzip":
        chunks = _gunzip(source)
    elif compression == "zstd":
        chunks = _unzstd(source)
    else:
        chunks = iter(lambda: source.read(_PLAIN), b"")
    held = bytearray()
    for chunk in chunks:
        if not held and len(chunk) >= _PLAIN_MIN:
            yield chunk
            continue
        held += chunk
        if len(held) >= _PLAIN_MIN:
            yield held
            held = bytearray()
    yield held


def _gunzip(source: _Counted) -> Iterator[bytes | memoryview]:
    """Decompress every member of a gzip file (RFC 1952, section 2.2), trailers verified."""
    data = source.read(_READ)
    ended = False
    while data:
        engine = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while data or not engine.needs_input:
            chunk = engine.decompress(data, _PLAIN)
            if chunk:
                yield chunk
            data = source.read(_READ) if engine.needs_input and not engine.eof else b""
            if engine.eof:
                break
        ended = engine.eof
        data = (engine.unused_data or source.read(_READ)) if ended else b""
    if not ended:
        raise ImageError("its gzip stream is cut short")


def _unzstd(source: _Counted) -> Iterator[bytes | memoryview]:
    """Decompress every frame of a zstd stream (RFC 8878, section 3).

    The library ends in silence when the stream does, within a frame too.  So a frame of our own
    follows the stream, and comes out whole only if the last one of the stream did.
    """
    engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    plain = engine.stream_reader(
        cast(IO[bytes], _Sealed(source)), read_size=_READ, read_across_frames=True
    )
    held = b""
    while chunk := plain.read(_PLAIN):
        if len(chunk) < len(_SEAL):
            chunk, held = held + chunk, b""
        yield held
        yield memoryview(chunk)[: -len(_SEAL)]
        held = chunk[-len(_SEAL) :]
    if held != _SEAL:
        raise ImageError("its zstd stream is cut short")


_SEAL = b"the stream before this was whole"
_SEAL_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(_SEAL)


class _Sealed:
    """A zstd stream, and behind its end the frame that shows that it was whole."""

    def __init__(self, source: _Counted) -> None:
        self._source = source
        self._seal = _SEAL_FRAME
        self._begun = False

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        if not data:
            if not self._begun:
                raise ImageError("its zstd stream is empty")
            data, self._seal = self._seal, b""
        self._begun = True
        return data


def _check_label(begin: bytes, layer: Layer) -> None:
    """Raise ImageError when a layer plainly is something else than its media type says."""
    label = layer.descriptor.compression
    alike = [content for content, magic, at in _MAGIC if begin[at:].startswith(magic)]
    if alike and label not in alike:
        raise ImageError(
            f"layer {layer.descriptor.digest} is {alike[0] or 'a plain tar'}, but its media type "
            f"{layer.descriptor.media_type!r} says {label or 'a plain tar'}",
            "push the image again with a tool that says what it writes",
        )


_MAGIC = (("gzip", b"\x1f\x8b", 0), ("zstd", b"\x28\xb5\x2f\xfd", 0), ("", b"ustar", 257))
"""How what a layer may be begins: RFC 1952, section 2.3; RFC 8878, section 3.1.1; POSIX pax(1)."""


def explained(exc: Exception, layer: Layer) -> SyncdError:
    """Return a fault found in a layer as one that says which layer it was."""
    place = f"layer {layer.descriptor.digest}"
    if isinstance(exc, SyncdError):
        return type(exc)(f"{place}: {exc.what}", exc.hint)
    return ImageError(f"{place} is not valid {layer.descriptor.compression}: {exc}")
