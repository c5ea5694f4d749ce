"""Files carried from one root file system to another, as root, although neither can be trusted.

Both roots may hold symlinks that lead anywhere on this host, so no symlink is ever followed: each
folder is opened in the one before it (openat(2) with O_NOFOLLOW).  A file keeps its numeric owner,
mode, times and extended attributes, takes the place of a file of its name, and is never seen
half-written.  Folders are filled, not emptied.  What lies on another file system than the old root
is another volume's, and is not carried.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from syncd.errors import StorageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1 << 20
_DEEPEST = 64
"""Folders within folders that are carried."""

Advance = Callable[[int], object]


def check_carried(path: str) -> str:
    """Return an absolute path, whose last part may be a pattern; raise ValueError for another."""
    parts = PurePosixPath(path).parts
    if parts[:1] != ("/",) or len(parts) < 2 or ".." in parts or "\0" in path:
        raise ValueError(f"{path!r:.200} is no absolute path below /")
    return path


def carry(path: str, old: Path, new: Path, advance: Advance) -> int:
    """Ensure that the new root has what the old one has at a path; return how many files.

    The last part of the path may be a pattern, which may match nothing.  `advance` is called with
    the bytes of each block.  Raise StorageError for a path that is not there, for one that leads
    through a symlink or into another volume, and for what is neither file, folder nor symlink.
    """
    *folders, last = PurePosixPath(check_carried(path)).parts[1:]
    try:
        with _opened(old) as source, _opened(new) as target:
            carrier = _Carrier(os.fstat(source).st_dev, advance)
            return carrier.within(source, target, folders, last)
    except OSError as exc:
        at = f" ({exc.filename})" if exc.filename else ""
        reason = _REASONS.get(exc.errno or 0, exc.strerror)
        raise StorageError(f"{path} cannot be carried over{at}: {reason}") from exc


_REASONS = {
    errno.ELOOP: "a symlink is in the way; name what it leads to",
    errno.ENOTDIR: "a symlink or a file is in the way of a folder; name what it leads to",
}


class _Carrier:
    def __init__(self, device: int, advance: Advance) -> None:
        self._device = device
        self._advance = advance

    def within(self, source: int, target: int, folders: list[str], last: str) -> int:
        """Carry what `last` means in a folder below; the new root gets the folders on the way."""
        if folders:
            first, *rest = folders
            with _opened(first, source) as below:
                self._check(below)
                with self._folder(first, below, target) as into:
                    return self.within(below, into, rest, last)
        found = [name for name in _names(source) if fnmatchcase(name, last)]
        if not found and not set(last) & set("*?["):
            raise FileNotFoundError(errno.ENOENT, "it is not in the old root", last)
        return sum(self._carry(name, source, target, 0) for name in found)

    def _carry(self, name: str, source: int, target: int, depth: int) -> int:
        mode = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            if depth == _DEEPEST:
                raise OSError(errno.ENAMETOOLONG, f"more than {_DEEPEST} folders deep", name)
            with _opened(name, source) as below:
                self._check(below)
                with self._folder(name, below, target) as into:
                    names = _names(below)
                    carried = sum(self._carry(one, below, into, depth + 1) for one in names)
                    _dress(below, into)
            return carried
        part = f".syncd-{secrets.token_hex(8)}"
        try:
            if stat.S_ISLNK(mode):
                _link(name, part, source, target)
            elif stat.S_ISREG(mode):
                self._file(name, part, source, target)
            else:
                raise OSError(errno.EINVAL, "it is neither file, folder nor symlink", name)
            os.replace(part, name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=target)
            raise
        return 1

    def _file(self, name: str, part: str, source: int, target: int) -> None:
        with _closing(os.open(name, _FILE, dir_fd=source)) as read:
            if not stat.S_ISREG(os.fstat(read).st_mode):
                raise OSError(errno.EINVAL, "it was changed meanwhile", name)
            self._check(read)
            with _closing(os.open(part, _NEW, 0o600, dir_fd=target)) as written:
                while block := os.read(read, _BLOCK):
                    self._advance(len(block))
                    while block:
                        block = block[os.write(written, block) :]
                _dress(read, written)
                os.fsync(written)

    @contextmanager
    def _folder(self, name: str, like: int, target: int) -> Iterator[int]:
        """Open a folder of the new root, which is made like the old root's where it is missing."""
        made = False
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=target)
            made = True
        with _opened(name, target) as opened:
            if made:
                _dress(like, opened)
            yield opened

    def _check(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_dev != self._device:
            raise OSError(errno.EXDEV, "it lies in another volume, which stays anyway")


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _link(name: str, part: str, source: int, target: int) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    os.symlink(os.readlink(name, dir_fd=source), part, dir_fd=target)
    os.chown(part, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    times = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(part, ns=times, dir_fd=target, follow_symlinks=False)


def _dress(like: int, descriptor: int) -> None:
    """Give an open file or folder the owner, mode, attributes and times of another."""
    found = os.fstat(like)
    os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(like):
        os.setxattr(descriptor, name, os.getxattr(like, name))
    os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))


@contextmanager
def _opened(path: str | Path, within: int | None = None) -> Iterator[int]:
    with _closing(os.open(path, _FOLDER, dir_fd=within)) as descriptor:
        yield descriptor


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
