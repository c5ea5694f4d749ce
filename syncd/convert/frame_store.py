"""zstd frames: the parts of a template, each compressed once and reused.

Frames are independent of each other (RFC 8878, section 3).  The content of a large file has frames
of its own for two reasons: the content can be compressed while its layer is still being read,
before the order of the template is known; and the same content is found again in an earlier
template, at whatever place.  Equal plain bytes, compressed at the same level by the same version of
zstd, are equal frames: a template has the same bytes whether its frames were found or made.

A `FrameTable` lists the frames of an earlier template.  A frame that is copied from such a file
is verified: disks damage what they keep, and `syncd convert --earlier` may name a file that others
write.  The digests are BLAKE3, since every byte of an image is digested and SHA-256 takes twice as
long (https://github.com/BLAKE3-team/BLAKE3-specs).
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import zstandard
from blake3 import blake3

from syncd.convert.scratch import ScratchFile
from syncd.errors import LostFrameError, StorageError
from syncd.files import replace_file
from syncd.limits import Hold, unbounded
from syncd.tar import Member, is_whole

THREADS = min(os.cpu_count() or 1, 4)
"""Threads that compress frames side by side."""

_MAGIC = b"syncd frames 2\n"
_ZSTD = bytes(zstandard.ZSTD_VERSION)
_HEAD = struct.Struct("<I3sI")  # level, zstd's version, offset of the first frame
_ROW = struct.Struct("<32sI32s")


_ENGINES = ((13, 38 << 20), (10, 24 << 20), (7, 14 << 20), (4, 6 << 20), (1, 4 << 20))
"""From which level on an engine takes how many bytes for a frame: measured by
`ZstdCompressor.memory_size()` of zstandard 0.25."""

Plain = bytes | memoryview
"""Bytes before they are compressed."""


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """Where the plain tar is cut into frames, in bytes; the sizes decide a template's bytes.

    Kept layers name frames that were cut by these sizes: a change of a default needs another magic
    in `layer_record`, too.
    """

    largest: int = 2 << 20
    """The size of a frame at most."""
    smallest: int = 128 << 10
    """The size that a frame of small files has at least before a name can end it."""
    large: int = 64 << 10
    """The size of a file from which its content has frames of its own."""

    def is_large(self, member: Member) -> bool:
        """Tell whether a file's content has frames of its own: it is large, and has no hole."""
        return member.size >= self.large and is_whole(member)


class Frame(NamedTuple):
    """One frame: its name, its size in bytes, and the digest of its bytes.

    The name is the digest of the frame's plain bytes, or a number in a conversion that will not be
    remembered.
    """

    name: bytes
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The frames of one template file in their order; the first is at the byte `start`."""

    level: int
    start: int
    frames: tuple[Frame, ...]

    @property
    def size(self) -> int:
        """How many bytes the table takes on disk."""
        return len(_MAGIC) + _HEAD.size + len(self.frames) * _ROW.size

    def write(self, path: Path) -> None:
        """Write the table to a file that appears whole; raise OSError."""
        rows = b"".join(_ROW.pack(*frame) for frame in self.frames)
        replace_file(path, _MAGIC + _HEAD.pack(self.level, _ZSTD, self.start) + rows)

    @classmethod
    def read(cls, path: Path, bound: int, zstd: bytes = _ZSTD) -> FrameTable | None:
        """Read a table of at most `bound` frames that this version of zstd made.

        Return None when the file has more, is no table, or is of another version.
        """
        with suppress(OSError, struct.error):
            if path.stat().st_size > len(_MAGIC) + _HEAD.size + bound * _ROW.size:
                return None
            content = path.read_bytes()
            level, version, start = _HEAD.unpack_from(content, len(_MAGIC))
            rows = content[len(_MAGIC) + _HEAD.size :]
            if content.startswith(_MAGIC) and version == zstd:
                return cls(level, start, tuple(map(Frame._make, _ROW.iter_unpack(rows))))
        return None


class _Place(NamedTuple):
    """Where a frame is stored; a `foreign` file may change, so its frames are verified."""

    fd: int
    offset: int
    frame: Frame
    foreign: bool


class FrameStore:
    """The frames that one conversion can use.  Safe to use from several threads.

    New frames are written to `scratch`, which the store closes.  `earlier` are templates to find
    frames in; None means that this conversion will not be remembered, so that no digest is needed.
    `hold` is told how much memory the threads take that compress.
    """

    def __init__(
        self,
        level: int,
        scratch: ScratchFile,
        earlier: Iterable[tuple[Path, FrameTable]] | None = None,
        sizes: FrameSizes | None = None,
        hold: Hold = unbounded,
    ) -> None:
        self._hold = hold
        self.level = level
        self.sizes = sizes or FrameSizes()
        self.remembered = earlier is not None
        self._scratch = scratch
        self._numbers = itertools.count()
        self._places: dict[bytes, _Place] = {}
        self._own = threading.local()
        self._files = ExitStack()
        self._files.enter_context(scratch)
        for template, table in earlier or ():
            if table.level == level:
                self._offer(template, table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def has(self, name: bytes) -> bool:
        """Tell whether the store has a frame of this name; the frame is not read."""
        return name in self._places

    def name(self, parts: Sequence[Plain]) -> bytes:
        """Return the name of the frame whose plain bytes are these parts, joined.

        The bytes that `plain` returned to this thread last are not digested again.
        """
        if not self.remembered:
            return b"%d" % next(self._numbers)
        content, name = getattr(self._own, "last", (None, b""))
        if content is not None and len(parts) == 1 and _is_all_of(content, parts[0]):
            return name
        hasher = blake3()
        for part in parts:
            hasher.update(part)
        return hasher.digest()

    def put(self, name: bytes, parts: Sequence[Plain]) -> None:
        """Compress these parts, joined, into the frame of this name, and store the frame.

        Raise StorageError when the disk does not take it.
        """
        frame, stored = self._compress(name, parts[0] if len(parts) == 1 else b"".join(parts))
        place = self._scratch.append(stored)
        self._places[name] = _Place(self._scratch.file.fileno(), place, frame, foreign=False)

    def get(self, name: bytes) -> tuple[Frame, bytes]:
        """Return a frame and its bytes; raise LostFrameError when the frame is gone or damaged."""
        place = self._places.get(name)
        if place is None:
            raise self._lost(name)
        try:
            stored = os.pread(place.fd, place.frame.size, place.offset)
        except OSError as exc:
            if not place.foreign:
                raise StorageError(f"a scratch file cannot be read: {exc.strerror}") from exc
            stored = b""
        if len(stored) != place.frame.size or (
            place.foreign and _digest(stored) != place.frame.digest
        ):
            raise self._lost(name)
        return place.frame, stored

    def plain(self, name: bytes) -> bytes:
        """Return the plain bytes of a frame; raise LostFrameError as `get`.

        The frame is verified though whoever takes its bytes verifies the tar that they are part of:
        `name` takes their name from here, and a layer may be kept by it.
        """
        _, stored = self.get(name)
        if not hasattr(self._own, "reader"):
            self._own.reader = zstandard.ZstdDecompressor()
        self._own.last = None, b""
        try:
            content: bytes = self._own.reader.decompress(stored)
        except zstandard.ZstdError as exc:
            raise self._lost(name) from exc
        self._own.last = content, name
        return content

    def make(self, plain: Plain) -> tuple[Frame, bytes]:
        """Return the frame of these plain bytes, found or made, and the bytes of the frame."""
        name = self.name([plain])
        if self.has(name):
            with suppress(LostFrameError):
                return self.get(name)
        return self._compress(name, plain)

    def _offer(self, template: Path, table: FrameTable) -> None:
        """Add the frames of an earlier template, unless its file cannot be opened."""
        with suppress(OSError):
            fd = self._files.enter_context(template.open("rb", buffering=0)).fileno()
            at = table.start
            for frame in table.frames:
                self._places.setdefault(frame.name, _Place(fd, at, frame, foreign=True))
                at += frame.size

    def _lost(self, name: bytes) -> LostFrameError:
        """Forget a frame; return the error to raise."""
        self._places.pop(name, None)
        return LostFrameError("a frame of an earlier template is gone or damaged")

    def _compress(self, name: bytes, plain: Plain) -> tuple[Frame, bytes]:
        if not hasattr(self._own, "engine"):
            self._hold(engine_size(self.level))
            self._own.engine = zstandard.ZstdCompressor(level=self.level, write_checksum=True)
        stored: bytes = self._own.engine.compress(plain)
        return Frame(name, len(stored), _digest(stored) if self.remembered else b""), stored


def engine_size(level: int) -> int:
    """Return the bytes of memory of one thread that compresses: engine, plain and stored frame."""
    return next(size for least, size in _ENGINES if level >= least) + 3 * FrameSizes().largest


def _is_all_of(content: bytes, part: Plain) -> bool:
    """Tell whether a part is this very object, or a view of all of it."""
    return len(part) == len(content) and memoryview(part).obj is content


def _digest(content: Plain) -> bytes:
    return blake3(content).digest()
