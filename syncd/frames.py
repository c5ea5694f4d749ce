"""zstd frames: what a template is a row of, pressed once and found again.

Frames are independent of each other (RFC 8878, section 3).  The content of a large file has frames
of its own, so that it can be pressed while its layer comes in, before anybody knows what the
template will look like; and so that the same content is found again in the templates that were
made before, wherever it stands there.  Equal plain bytes, pressed at one level by one version of
zstd, are equal frames: a template has the same bytes whether its frames were found or made.

A `Table` says which frames an earlier template consists of.  What is read from there is verified,
since its file may have a second name in a storage that others write.  BLAKE3 makes the digests:
every byte of an image passes through them, and SHA-256 takes twice as long
(https://github.com/BLAKE3-team/BLAKE3-specs).
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

from syncd.belonging import replace_file
from syncd.errors import StorageError
from syncd.member import Member, is_whole
from syncd.spool import Scratch

FRAME_MAX = 2 << 20
"""Plain bytes of one frame at most; a change needs another magic in `syncd.record`, too."""
LARGE = 64 << 10
"""Bytes of content from which a file has frames of its own."""

THREADS = min(os.cpu_count() or 1, 4)
"""Threads that press frames side by side."""

_MAGIC = b"syncd frames 2\n"
_VERSION = bytes(zstandard.ZSTD_VERSION)
_HEAD = struct.Struct("<I3sI")  # level, zstd's version, offset of the first frame
_ROW = struct.Struct("<32sI32s")


Plain = bytes | memoryview
"""Bytes before they are pressed."""


class LostFrameError(StorageError):
    """A frame that was counted on is gone, or is not what it was."""


class Frame(NamedTuple):
    """One frame: its name, its size in bytes, and the digest of these.

    Its name is the digest of its plain bytes; or only a number, in a conversion that will not be
    remembered.
    """

    name: bytes
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """The frames of one template file, in their order, from the byte `start` on."""

    level: int
    start: int
    frames: tuple[Frame, ...]

    def write(self, path: Path) -> None:
        """Write the table to a file that appears whole; raise OSError."""
        rows = b"".join(_ROW.pack(*frame) for frame in self.frames)
        replace_file(path, _MAGIC + _HEAD.pack(self.level, _VERSION, self.start) + rows)

    @classmethod
    def read(cls, path: Path, most: int) -> Table | None:
        """Read a table of at most so many frames.

        Return None when it has more, is no table, or zstd makes such frames otherwise by now.
        """
        with suppress(OSError, struct.error):
            if path.stat().st_size > len(_MAGIC) + _HEAD.size + most * _ROW.size:
                return None
            content = path.read_bytes()
            level, version, start = _HEAD.unpack_from(content, len(_MAGIC))
            rows = content[len(_MAGIC) + _HEAD.size :]
            if content.startswith(_MAGIC) and version == _VERSION:
                return cls(level, start, tuple(map(Frame._make, _ROW.iter_unpack(rows))))
        return None


class _Place(NamedTuple):
    """Where a frame lies, and whether it has to be verified there."""

    fd: int
    offset: int
    frame: Frame
    foreign: bool


class Frames:
    """The frames that one conversion has at hand.  Safe to use from several threads.

    What it makes lies in `scratch`, which it closes.  `earlier` are templates to find
    frames in; None means that this conversion will not be remembered, so that nothing is digested.
    """

    def __init__(
        self, level: int, scratch: Scratch, earlier: Iterable[tuple[Path, Table]] | None = None
    ) -> None:
        self.level = level
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
        """Tell whether a frame is here, as far as can be told without reading it."""
        return name in self._places

    def name(self, parts: Sequence[Plain]) -> bytes:
        """Return the name of the frame of these bytes, which come in parts."""
        if not self.remembered:
            return b"%d" % next(self._numbers)
        hasher = blake3()
        for part in parts:
            hasher.update(part)
        return hasher.digest()

    def put(self, name: bytes, parts: Sequence[Plain]) -> None:
        """Press the frame of this name and these bytes, so that it is here.

        Raise StorageError when the disk does not take it.
        """
        frame, stored = self._press(name, parts[0] if len(parts) == 1 else b"".join(parts))
        place = self._scratch.append(stored)
        self._places[name] = _Place(self._scratch.file.fileno(), place, frame, foreign=False)

    def get(self, name: bytes) -> tuple[Frame, bytes]:
        """Return a frame and its bytes; raise LostFrameError when it is not here as it was."""
        place = self._places.get(name)
        if place is not None:
            try:
                stored = os.pread(place.fd, place.frame.size, place.offset)
            except OSError as exc:
                if not place.foreign:
                    raise StorageError(f"a spool file cannot be read: {exc.strerror}") from exc
                stored = b""
            if len(stored) == place.frame.size and not (
                place.foreign and _digest(stored) != place.frame.digest
            ):
                return place.frame, stored
            self._places.pop(name, None)
        raise LostFrameError("a frame of an earlier template is gone or damaged")

    def make(self, plain: Plain) -> tuple[Frame, bytes]:
        """Return the frame of these bytes and its own, found or made."""
        name = self.name([plain])
        if self.has(name):
            with suppress(LostFrameError):
                return self.get(name)
        return self._press(name, plain)

    def _offer(self, template: Path, table: Table) -> None:
        """Count a template's frames among ours; one that cannot be opened has none."""
        with suppress(OSError):
            fd = self._files.enter_context(template.open("rb", buffering=0)).fileno()
            at = table.start
            for frame in table.frames:
                self._places.setdefault(frame.name, _Place(fd, at, frame, foreign=True))
                at += frame.size

    def _press(self, name: bytes, plain: Plain) -> tuple[Frame, bytes]:
        if not hasattr(self._own, "engine"):
            self._own.engine = zstandard.ZstdCompressor(level=self.level, write_checksum=True)
        stored: bytes = self._own.engine.compress(plain)
        return Frame(name, len(stored), _digest(stored) if self.remembered else b""), stored


def is_large(member: Member) -> bool:
    """Tell whether a file's content has frames of its own: it is large, and without a hole."""
    return member.size >= LARGE and is_whole(member)


def _digest(content: Plain) -> bytes:
    return blake3(content).digest()
