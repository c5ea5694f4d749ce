"""One daemon for one state: a second one does not start, and says who holds the state.

Two daemons would take up each other's jobs.  The kernel releases the lock when the process ends,
however it ends (flock(2)), so a crash leaves nothing to be cleaned up.  Commands need no such lock:
what a command and the daemon both want is done once, by whoever comes first.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from syncd.errors import ConfigError
from syncd.files import make_folder, open_own

_LOCKS = Path("/proc/locks")
_LONGEST = 32  # bytes of the process id in the file


@contextmanager
def daemon_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a state while the context is open; the file tells the process that does.

    Raise ConfigError when another process holds the lock, or the file cannot be written.
    """
    with _told(path):
        make_folder(path.parent)
        descriptor = open_own(path, os.O_RDWR)
    try:
        with _told(path):
            _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def lock_holder(path: Path) -> int | None:
    """Return the id of the process that holds a state's lock; None where none is seen to.

    The lock is not tried, which could keep a daemon from starting just then: the kernel lists the
    locks that are held (proc_locks(5)).
    """
    try:
        holder, inode = int(path.read_text("ascii")[:_LONGEST]), path.stat().st_ino
        held = [line.split() for line in _LOCKS.read_text("ascii").splitlines()]
    except (OSError, ValueError):
        return None
    for lock in held:
        match lock:
            case [_, "FLOCK", _, "WRITE", pid, place, *_] if pid == str(holder) and place.endswith(
                f":{inode}"
            ):
                return holder
    return None


def _take(descriptor: int, path: Path) -> None:
    """Lock the file and write this process into it; raise ConfigError or OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.pread(descriptor, _LONGEST, 0).decode("ascii", "replace").strip()
        raise ConfigError(
            f"a daemon with process id {holder or 'unknown'} uses the state {path.parent}",
            hint="stop it, or give this one another state.directory",
        ) from exc
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell of an OSError in this context as ConfigError, with the file and what to do."""
    try:
        yield
    except OSError as exc:
        hint = "check state.directory"
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"make room where {path.parent} is, or give another state.directory"
        raise ConfigError(f"{path} cannot be written: {exc.strerror}", hint=hint) from exc
