"""Scratch space of a conversion: files without a name, and layers that are kept by diff_id.

A file without a name is never visible half-written and leaves nothing behind, not even after a
crash.  A kept layer need not be unpacked again; a kept layer that has gone bad is removed.  Bytes
are counted before they are written, since nobody else sees the size of a file without a name.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

from syncd.convert.layer_record import LayerRecord
from syncd.errors import StorageError, SyncdError
from syncd.files import hand_over, make_folder
from syncd.limits import Hold, unbounded
from syncd.oci import Digest


class ScratchFile:
    """A file without a name that only grows.  Safe to use from several threads."""

    def __init__(self, file: BinaryIO, folder: Path, room: Hold = unbounded) -> None:
        self.file = file
        self._folder = folder
        self._room = room
        self._end = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, content: bytes | bytearray) -> int:
        """Add some bytes; return where they lie.  Raise StorageError when the disk is full."""
        self._room(len(content))
        with self._lock:
            at = place = self._end
            self._end += len(content)
        try:
            with memoryview(content) as view:
                while at < place + len(content):
                    at += os.pwrite(self.file.fileno(), view[at - place :], at)
        except OSError as exc:
            raise StorageError(
                f"the scratch folder {self._folder} does not take more: {exc.strerror}",
                "make room, or put state.directory on a larger disk",
            ) from exc
        return place

    def close(self) -> None:
        """Close the file, which was not kept: its content is gone, and counts no more."""
        self.file.close()
        self._room(-self._end)
        self._end = 0


class KeptFile(NamedTuple):
    """A kept layer: where it lies, and its file, which is open."""

    path: Path
    file: BinaryIO


class ScratchSpace:
    """A folder for scratch files, and a folder where layers are kept, or None to keep none.

    `room` counts the bytes that are going to be written, and raises where they are too many; what
    the whole conversion writes is told to it.  Safe to use from several threads, and by several
    processes.
    """

    def __init__(self, folder: Path, kept: Path | None = None, room: Hold = unbounded) -> None:
        self.folder = folder
        self.room = room
        self._kept = kept

    def counted_by(self, room: Hold) -> ScratchSpace:
        """Return the same space, where `room` counts."""
        return ScratchSpace(self.folder, self._kept, room)

    def without_kept(self) -> ScratchSpace:
        """Return the same space, where no layer is found or kept."""
        return ScratchSpace(self.folder, room=self.room)

    def new(self) -> ScratchFile:
        """Return an empty file; raise StorageError."""
        try:
            return ScratchFile(self._nameless(), self.folder, self.room)
        except OSError as exc:
            raise StorageError(
                f"no scratch file can be made in {self.folder}: {exc.strerror}",
                "check its permissions and free space, and how many files may be open",
            ) from exc

    def find(self, diff_id: Digest, hold: Hold = unbounded) -> tuple[BinaryIO, LayerRecord] | None:
        """Return the file and the record of a kept layer; None if it is missing or damaged.

        `hold` is told how much memory the record takes; what it raises is raised.
        """
        if self._kept is None:
            return None
        path = kept_at(self._kept, diff_id)
        try:
            file = cast(BinaryIO, path.open("rb", buffering=0))
        except OSError:
            return None
        try:
            record = LayerRecord.read(file, hold)
            os.utime(path)
        except (OSError, StorageError):
            file.close()
            with suppress(OSError):
                path.unlink()
            return None
        except SyncdError:
            file.close()
            raise
        return file, record

    def kept(self) -> Iterator[KeptFile]:
        """Yield the files of kept layers, not verified, the one that was used last first.

        Who takes a file closes it.
        """
        if self._kept is None:
            return
        for path in sorted(self._kept.glob("*"), key=_last_used, reverse=True):
            with suppress(OSError):
                yield KeptFile(path, cast(BinaryIO, path.open("rb", buffering=0)))

    def forget(self, kept: KeptFile) -> None:
        """Keep this layer no longer, unless its name stands for another file by now."""
        with suppress(OSError):
            if os.path.samestat(kept.path.stat(), os.fstat(kept.file.fileno())):
                kept.path.unlink()

    def keep(self, diff_id: Digest, contents: ScratchFile, record: LayerRecord) -> None:
        """Keep a layer whose contents are complete, if the disk and its file system allow it."""
        if self._kept is None:
            return
        file = contents.file
        with suppress(OSError):
            make_folder(self._kept)
            hand_over(file.fileno(), self._kept)
            begin = os.fstat(file.fileno()).st_size
            record.write(file)
            size = os.fstat(file.fileno()).st_size
            self.room(size - begin)
            opened = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
            try:
                # linkat(2) follows the link of /proc to the file; os.link calls it for a folder.
                os.link(str(file.fileno()), kept_at(self._kept, diff_id), src_dir_fd=opened)
            finally:
                os.close(opened)
            self.room(-size)  # the file has a name now, by which its size is seen

    def _nameless(self) -> BinaryIO:
        """Open a file that can still get a name: open(2), O_TMPFILE; elsewhere one that cannot."""
        try:
            opened = os.open(self.folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            return cast(BinaryIO, tempfile.TemporaryFile(dir=self.folder, buffering=0))
        return cast(BinaryIO, os.fdopen(opened, "w+b", buffering=0))


def kept_at(folder: Path, diff_id: Digest) -> Path:
    """Return where a layer is kept in the folder of kept layers."""
    return folder / f"{diff_id.algorithm}-{diff_id.encoded}"


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
