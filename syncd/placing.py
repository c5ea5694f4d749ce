"""A finished file put into a folder that others list: whole, durable, never over another file.

Templates appear in a storage's folder while Proxmox VE and other clients look at it, and other
nodes may write there too.  So a file takes its name only when all its bytes are on the disk, and
a name that is taken stays as it is.  Where the file system allows it nothing is copied: the name
is a hard link, or the copy shares its blocks (copy_file_range(2) clones where there is reflink).

Nothing here knows what a template is, or which storage the folder belongs to.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from syncd.belonging import open_own
from syncd.errors import StorageError

_CHUNK = 8 << 20
_NAME_MAX = 255  # bytes of a file name: NAME_MAX, linux/limits.h

# Other file systems, ones without hard links, too many links, a file of somebody else
# (fs.protected_hardlinks): link(2).
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def place(file: Path, folder: Path, name: str) -> None:
    """Ensure that `folder` holds the content of `file` as `name`, and that it is on the disk.

    A file of this name and size is taken to be the same one: names of templates carry a digest.
    The bytes of `file` must never change afterwards, since both names may share them.  What was
    half-written, by us now or by a crash before, never shows up in a listing: it has a name that
    starts with a dot and ends in `.part`.  Raise StorageError when the disk refuses, or when
    another file has the name.
    """
    target = folder / name
    try:
        with file.open("rb") as source:
            if not _is_there(target, source.fileno()):
                os.fsync(source.fileno())
                if not _link(file, target, source.fileno()):
                    _copy(source.fileno(), target)
        _sync(folder)
    except OSError as exc:
        raise StorageError(
            f"{file} cannot be placed as {target}: {exc.strerror}",
            "check the folder, its permissions and free space",
        ) from exc


def _is_there(target: Path, source: int) -> bool:
    """Tell whether the name is taken already; raise StorageError when by something else."""
    try:
        found = target.lstat().st_size
    except FileNotFoundError:
        return False
    if found != os.fstat(source).st_size:
        raise StorageError(
            f"{target} is there already with another size "
            f"({found} bytes, not {os.fstat(source).st_size})",
            "syncd never overwrites a template; find out whose it is, and remove it",
        )
    return True


def _link(file: Path, target: Path, source: int) -> bool:
    """Give the file its second name; return False where that is not possible."""
    try:
        target.hardlink_to(file)
    except FileExistsError:
        return _is_there(target, source)
    except OSError as exc:
        if exc.errno in _NO_LINK:
            return False
        raise
    return True


def _copy(source: int, target: Path) -> None:
    """Copy to a hidden name, and rename that once it is complete and on the disk."""
    with _own(target.with_name(f".{target.name}"[: _NAME_MAX - 5] + ".part")) as (part, path):
        if _is_there(target, source):
            return
        os.ftruncate(part, 0)
        _copy_content(source, part)
        os.fsync(part)
        if not _link(path, target, source):
            # No hard links here, and Python has no renameat2: the lock keeps other syncds off.
            if _is_there(target, source):
                return
            path.rename(target)


@contextmanager
def _own(path: Path) -> Iterator[tuple[int, Path]]:
    """Hold a hidden file alone, waiting for others to finish theirs; it is gone afterwards."""
    while True:
        part = open_own(path, os.O_RDWR)
        try:
            fcntl.flock(part, fcntl.LOCK_EX)
            # Whoever held it may have removed it meanwhile: then this lock is on nothing.
            if os.fstat(part).st_nlink == 0 or not _is_same(part, path):
                continue
            try:
                yield part, path
            finally:
                if _is_same(part, path):
                    path.unlink()
            return
        finally:
            os.close(part)


def _is_same(part: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(part), path.lstat())
    except FileNotFoundError:
        return False


def _copy_content(source: int, part: int) -> None:
    """Copy all bytes, in the kernel and sharing blocks where it can."""
    left, at = os.fstat(source).st_size, 0
    while left:
        try:
            done = os.copy_file_range(source, part, min(left, 1 << 30), at, at)
        except OSError as exc:
            # Which pairs of file systems can do it differs by kernel: copy_file_range(2).
            if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            done = 0
        if not done:
            data = os.pread(source, _CHUNK, at)
            if not data:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            done = os.pwrite(part, data, at)
        left -= done
        at += done


def _sync(folder: Path) -> None:
    """Put the folder's entries on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
