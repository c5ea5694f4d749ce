"""One writer at a time for a template's name.

Proxmox VE takes no lock while it writes a template: two uploads of one name at a time leave a
mixed file, with both reported as good.  What is guaranteed here: on one host, one writer for each
(storage, name) across threads and processes.  On a Proxmox VE host also one in the whole cluster,
for those who use this lock, by a folder in /etc/pve/priv/lock (pmxcfs).  Between hosts that only
have the API nothing can be guaranteed, since it offers no lock; there the uploads that run already
are looked for and waited for, which leaves a gap of a few seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncd.belonging import make_folder, open_own
from syncd.errors import StorageError, TargetUnavailableError
from syncd.job import Advance

CLUSTER_LOCKS = Path("/etc/pve/priv/lock")
_REFRESH = 30.0  # seconds; pmxcfs lets a lock expire 120 s after its last refresh
_PAUSE = 0.5
_PATIENCE = 3600.0  # seconds to wait for another writer: as long as a slow upload takes


@contextmanager
def sole_writer(state: Path, storage: str, name: str, advance: Advance) -> Iterator[None]:
    """Be the only writer of a template, as far as the module's docstring promises it.

    `advance` is called with 0 while another one is waited for.  Raise StorageError when the
    state folder cannot be used, TargetUnavailableError when the other takes too long.
    """
    key = hashlib.sha256(f"{storage}/{name}".encode()).hexdigest()[:32]
    with _of_host(state / "locks", key, advance), _of_cluster(CLUSTER_LOCKS, key, advance):
        yield


@contextmanager
def _of_host(folder: Path, key: str, advance: Advance) -> Iterator[None]:
    try:
        make_folder(folder)
        opened = open_own(folder / key, os.O_RDWR)
    except OSError as exc:
        raise StorageError(
            f"the lock folder {folder} cannot be used: {exc.strerror}", "check its permissions"
        ) from exc
    try:
        for _ in _attempts(advance, f"another syncd on this host writes (lock {folder / key})"):
            with suppress(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        yield
    finally:
        os.close(opened)


@contextmanager
def _of_cluster(folder: Path, key: str, advance: Advance) -> Iterator[None]:
    """Hold a lock of pmxcfs: a folder that only one can make (PVE::Cluster, `cfs_lock`)."""
    if not os.access(folder, os.W_OK):
        yield
        return
    path = folder / f"syncd-{key}"
    try:
        for _ in _attempts(advance, f"another node writes (lock {path})"):
            try:
                path.mkdir()
                break
            except FileExistsError:
                # This asks pmxcfs to remove the lock if it has expired.
                with suppress(FileNotFoundError):
                    os.utime(path, (0, 0))
    except OSError as exc:
        raise TargetUnavailableError(
            f"the cluster lock {path} cannot be taken: {exc.strerror}",
            "check that the cluster has quorum: pvecm status",
        ) from exc
    done = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(path, done), name="refresh", daemon=True)
    refresher.start()
    try:
        yield
    finally:
        done.set()
        refresher.join()
        with suppress(OSError):  # what is left expires by itself
            path.rmdir()


def _refresh(path: Path, done: threading.Event) -> None:
    while not done.wait(_REFRESH):
        with suppress(OSError):
            os.utime(path)


def _attempts(advance: Advance, what: str) -> Iterator[None]:
    """Yield until the caller has what it wants, or patience ends."""
    end = time.monotonic() + _PATIENCE
    while True:
        yield
        if time.monotonic() > end:
            raise TargetUnavailableError(f"{what} the same template for too long")
        advance(0)
        time.sleep(_PAUSE)
