"""The lock of a template's name, so that one writer at a time writes the template.

Proxmox VE takes no lock while it writes a template: two uploads of one name at a time leave a file
that mixes both, and both tasks end with OK.  On one host, this lock admits one writer for each
(storage, name) among all threads and processes.  On a Proxmox VE host, it admits one writer in the
whole cluster among those that use the lock, by a folder in /etc/pve/priv/lock (pmxcfs).

Between hosts that have only the API nothing is guaranteed, since the API has no lock.  Two hosts
that upload one name at a time may both send the body, and the second upload overwrites the first.
Waiting for a running upload does not prevent this: Proxmox VE has no task, and lists no file, while
a body is still arriving, so an upload that began during that time is not seen.  Only an upload
whose task runs already is waited for, and only where this token may see the task: a task of the
same token, or any task with Sys.Audit on the node.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from syncd.errors import StorageError, TargetUnavailableError
from syncd.files import make_folder, open_own
from syncd.progress import Advance

log = structlog.stdlib.get_logger()

CLUSTER_LOCKS = Path("/etc/pve/priv/lock")
_REFRESH = 30.0  # seconds; pmxcfs lets a lock expire 120 s after its last refresh
_PAUSE = 0.5
_PATIENCE = 3600.0  # seconds to wait for another writer: the time of a slow upload


@contextmanager
def sole_writer(locks: Path, storage: str, name: str, advance: Advance) -> Iterator[None]:
    """Hold the lock of a template's name, which promises what the module's docstring says.

    `advance` is called with 0 while another writer holds the lock.  Raise StorageError when the
    lock folder cannot be used, TargetUnavailableError when the other writer takes too long.
    """
    key = hashlib.sha256(f"{storage}/{name}".encode()).hexdigest()[:32]
    what = f"{name} in {storage.removeprefix('/')}"
    with _of_host(locks, key, what, advance), _of_cluster(CLUSTER_LOCKS, key, what, advance):
        yield


@contextmanager
def _of_host(folder: Path, key: str, what: str, advance: Advance) -> Iterator[None]:
    try:
        make_folder(folder)
        descriptor = open_own(folder / key, os.O_RDWR)
    except OSError as exc:
        raise StorageError(
            f"the lock folder {folder} cannot be used: {exc.strerror}", "check its permissions"
        ) from exc
    try:
        for _ in _attempts(
            advance, lambda: f"{what}: another syncd on this host writes it (lock {folder / key})"
        ):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _of_cluster(folder: Path, key: str, what: str, advance: Advance) -> Iterator[None]:
    """Hold a lock of pmxcfs: a folder that only one process can create (PVE::Cluster, `cfs_lock`).

    Where pmxcfs is not in reach, nothing is held: only root on a Proxmox VE host reaches it.
    """
    if not os.access(folder, os.X_OK):
        yield
        return
    path = folder / f"syncd-{key}"
    for _ in _attempts(advance, lambda: f"{what}: {_holder(path)}"):
        if _taken(path):
            break
    done = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(path, done), name="refresh", daemon=True)
    refresher.start()
    try:
        yield
    finally:
        done.set()
        refresher.join()
        with suppress(OSError):  # a lock that stays expires by itself
            path.rmdir()


def _taken(path: Path) -> bool:
    """Try to take a lock of pmxcfs; tell whether it is held now.

    An expired lock is released and taken at once: pmxcfs only removes the lock when asked for the
    release, and answers EACCES while the lock is valid (measured on pmxcfs 9.1.6).  Raise
    TargetUnavailableError where pmxcfs takes no writes: a node without quorum would wait in vain.
    """
    for release in (True, False):
        try:
            path.mkdir()
        except FileExistsError:
            _check_quorum(path.parent)
        except OSError as exc:
            raise _unwritable(path.parent, exc.strerror) from exc
        else:
            return True
        if release:
            try:
                os.utime(path, (0, 0))
            except (PermissionError, FileNotFoundError):
                continue
            except OSError as exc:
                raise _unwritable(path.parent, exc.strerror) from exc
    return False


def _check_quorum(folder: Path) -> None:
    """Raise TargetUnavailableError unless pmxcfs has quorum.

    Without quorum nothing in pmxcfs has the owner's write bit.  Only the bit tells this: access(2)
    always allows root to write (PVE::Cluster, `check_cfs_quorum`).
    """
    if not folder.stat().st_mode & stat.S_IWUSR:
        raise _unwritable(folder, "it has no write permission")


def _unwritable(folder: Path, reason: str | None) -> TargetUnavailableError:
    return TargetUnavailableError(
        f"the cluster locks in {folder} cannot be written: {reason}",
        "check that the cluster has quorum: pvecm status; and that the service may write there",
    )


def _holder(path: Path) -> str:
    """Return what is known of the holder of a lock of pmxcfs, which records no name."""
    try:
        age = max(0, round(time.time() - path.stat().st_mtime))
    except OSError:
        return f"another node writes it (lock {path}, released now)"
    return f"another node writes it (lock {path}, last refreshed {age} s ago)"


def _refresh(path: Path, done: threading.Event) -> None:
    """Keep a lock of pmxcfs from expiring until `done` is set."""
    while not done.wait(_REFRESH):
        with suppress(OSError):
            os.utime(path)


def _attempts(advance: Advance, holder: Callable[[], str]) -> Iterator[None]:
    """Yield before each attempt, with a pause in between, until the caller stops.

    `holder` tells who is waited for, which is logged once.  Raise TargetUnavailableError when the
    time to wait has passed.
    """
    end = time.monotonic() + _PATIENCE
    waited = False
    while True:
        yield
        if time.monotonic() > end:
            raise TargetUnavailableError(f"{holder()}, for too long")
        if not waited:
            log.info("waiting for another writer", holder=holder())
            waited = True
        advance(0)
        time.sleep(_PAUSE)
