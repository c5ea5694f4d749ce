"""A finished file put into a folder that others list: whole, durable, never over another file.

Proxmox VE and other clients list a storage's folder at any time, and other nodes write there, too.
So a file gets its name only when all its bytes are on the disk, and a file that has the name
already is never replaced.  The published file is a file of its own, never a second name of the
file it was made from: whoever may change a storage's file shall not change what the service keeps,
and the other way round.  It belongs to the user who publishes, and everybody may read it.  The
copy shares its blocks where the file system has reflinks (copy_file_range(2) clones there).  It
leaves nothing in the page cache: the service's bound on memory counts that, too, and the file is
read at another time, if not on another node.

This module does not know what a template is, or which storage a folder belongs to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from syncd.errors import GrowingFileError, OccupiedNameError, StorageError
from syncd.files.flusher import Flusher

_Pause = Callable[[float], object]
_CHUNK = 8 << 20
_GROWTH_PAUSE = 2.0  # seconds between two looks at a file that may be growing
_GROWTH_BOUND = 600.0  # seconds for which a growing file is waited for
_NAME_MAX = 255  # bytes of a file name: NAME_MAX, linux/limits.h

# link(2) fails so on a file system without hard links, and between two of its parts.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def publish_file(file: Path, folder: Path, name: str, pause: _Pause = time.sleep) -> None:
    """Ensure that `folder` holds the content of `file` as `name`, and that this is on the disk.

    A file that has this name already counts only when it has the same bytes: anybody may know the
    name and the size.  While such a file grows, it is waited for, ten minutes at most; `pause`
    waits, and may raise to give up.  An incomplete file, such as a crash leaves, has a hidden name
    that starts with a dot and ends in `.part`, which no listing shows; none is left.  Raise
    OccupiedNameError when another file has the name, GrowingFileError when it still grows,
    StorageError when the disk refuses.
    """
    target = folder / name
    try:
        with file.open("rb") as source:
            _wait_for_growing(target, os.fstat(source.fileno()).st_size, pause)
            if _exists(target, source.fileno()):
                remove_part(folder, name)
            else:
                _copy(source.fileno(), target)
        _sync(folder)
    except OSError as exc:
        raise StorageError(
            f"{file} cannot be placed as {target}: {exc.strerror}",
            "check the folder, its permissions and free space",
        ) from exc


def _wait_for_growing(target: Path, wanted: int, pause: _Pause) -> None:
    """Wait while the file grows and is smaller than `wanted` bytes; raise GrowingFileError."""
    waited, size = 0.0, _size(target)
    while size is not None and size < wanted:
        pause(_GROWTH_PAUSE)
        waited += _GROWTH_PAUSE
        before, size = size, _size(target)
        if size == before:
            return
        if waited >= _GROWTH_BOUND:
            raise GrowingFileError(f"{target} is still being written by somebody else")


def remove_part(folder: Path, name: str) -> bool:
    """Ensure that `folder` has no incomplete file of `name` whose process died.

    Return whether there was one.  A file that is being written just now is left alone.  Raise
    StorageError when the disk refuses.
    """
    path = _part_of(folder / name)
    try:
        part = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            abandoned = _is_same(part, path)
            if abandoned:
                path.unlink()
            return abandoned
        finally:
            os.close(part)
    except (FileNotFoundError, BlockingIOError):
        return False
    except OSError as exc:
        raise StorageError(
            f"{path} cannot be removed: {exc.strerror}", "check whose it is, and remove it"
        ) from exc


def _part_of(target: Path) -> Path:
    """Return the hidden name under which a copy is made."""
    return target.with_name(f".{target.name}"[: _NAME_MAX - 5] + ".part")


def _size(target: Path) -> int | None:
    """Return the size of a file in bytes, or None when there is no file."""
    try:
        return target.lstat().st_size
    except FileNotFoundError:
        return None


def _exists(target: Path, source: int) -> bool:
    """Tell whether the file exists with the bytes of `source`.

    Raise OccupiedNameError when another file has the name.
    """
    size, wanted = _size(target), os.fstat(source).st_size
    if size is None:
        return False
    if size != wanted:
        fault = f"with another size ({size} bytes, not {wanted})"
    elif not _has_content(target, source):
        fault = "with other bytes of the same size"
    else:
        return True
    raise OccupiedNameError(
        f"{target} is there already {fault}",
        "syncd never overwrites a template; find out whose it is, and remove it",
    )


def _has_content(target: Path, source: int) -> bool:
    """Tell whether a file of the size of `source` has its bytes, and is no symlink."""
    descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if os.path.samestat(found, os.fstat(source)):
            return True
        return stat.S_ISREG(found.st_mode) and all(
            os.pread(descriptor, _CHUNK, offset) == os.pread(source, _CHUNK, offset)
            for offset in range(0, found.st_size, _CHUNK)
        )
    finally:
        os.close(descriptor)


def _link(file: Path, target: Path, source: int) -> bool:
    """Give the hidden copy its name, too; return False where hard links are not possible."""
    try:
        target.hardlink_to(file)
    except FileExistsError:
        return _exists(target, source)
    except OSError as exc:
        if exc.errno in _NO_LINK:
            return False
        raise
    return True


def _copy(source: int, target: Path) -> None:
    """Copy to a hidden name; give the copy its name once the copy is on the disk."""
    with _locked(_part_of(target)) as (part, path):
        if _exists(target, source):
            return
        with Flusher(part, is_read_here=False) as flusher:
            _copy_content(source, part, flusher.wrote)
            # Other nodes read a shared folder as another user than the writer's (NFS's
            # root_squash).
            os.fchmod(part, 0o644)
            flusher.settle()
        if not _link(path, target, source):
            # The file system has no hard links, and Python has no renameat2 to rename without
            # replacing: the lock keeps other processes of syncd from taking the name in between.
            if _exists(target, source):
                return
            path.rename(target)


@contextmanager
def _locked(path: Path) -> Iterator[tuple[int, Path]]:
    """Provide a new hidden file, its descriptor and path, that this process alone holds.

    A file that has the name is waited for while another process holds it, and then removed: it may
    be another user's, who would own the published file.  The new file is removed at the end.
    """
    while True:
        try:
            part = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            _remove_leftover(path)
            continue
        try:
            fcntl.flock(part, fcntl.LOCK_EX)
            # Another process may have taken the file for a leftover before it was locked.
            if not _is_same(part, path):
                continue
            os.fchmod(part, 0o644)  # whatever the umask is: Proxmox VE and others read the file
            try:
                yield part, path
            finally:
                if _is_same(part, path):
                    path.unlink()
            return
        finally:
            os.close(part)


def _remove_leftover(path: Path) -> None:
    """Ensure that a hidden file that no process holds any more does not exist."""
    try:
        left = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(left, fcntl.LOCK_EX)
        if _is_same(left, path):
            path.unlink()
    finally:
        os.close(left)


def _is_same(part: int, path: Path) -> bool:
    """Tell whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(part), path.lstat())
    except FileNotFoundError:
        return False


def _copy_content(source: int, part: int, wrote: Callable[[int], None]) -> None:
    """Copy all bytes, in the kernel and with shared blocks where that is possible.

    `wrote` is told how many, again and again.
    """
    remaining, offset = os.fstat(source).st_size, 0
    while remaining:
        try:
            copied = os.copy_file_range(source, part, min(remaining, _CHUNK), offset, offset)
        except OSError as exc:
            # The kernel's version decides which file systems are supported: copy_file_range(2).
            if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            copied = 0
        if not copied:
            data = os.pread(source, _CHUNK, offset)
            if not data:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            copied = os.pwrite(part, data, offset)
        remaining -= copied
        offset += copied
        wrote(copied)


def _sync(folder: Path) -> None:
    """Flush the entries of the folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
