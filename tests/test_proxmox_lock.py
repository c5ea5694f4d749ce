"""One writer at a time, on a host and where pmxcfs is."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from syncd.errors import StorageError, TargetUnavailableError
from syncd.job import StoppedError
from syncd.proxmox import lock
from syncd.proxmox.lock import sole_writer


def silent(_: int) -> None:
    """Hear nothing."""


def stopping(_: int) -> None:
    """Be in a hurry."""
    raise StoppedError("stopping")


@pytest.fixture
def cluster_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a folder where pmxcfs would be."""
    folder = tmp_path / "priv-lock"
    folder.mkdir()
    monkeypatch.setattr(lock, "CLUSTER_LOCKS", folder)
    return folder


def test_alone_on_host(tmp_path: Path) -> None:
    """A second writer of one name waits until the first is done."""
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with sole_writer(tmp_path, "local", "a.tar", silent):
            order.append("second")

    with sole_writer(tmp_path, "local", "a.tar", silent):
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_others_free(tmp_path: Path) -> None:
    """Other names, and other storages, do not wait for each other."""
    with ExitStack() as stack:
        for storage, name in (("local", "a.tar"), ("local", "b.tar"), ("cephfs", "a.tar")):
            stack.enter_context(sole_writer(tmp_path, storage, name, stopping))


def test_stopped(tmp_path: Path) -> None:
    """A job that is to stop does not wait on."""
    with sole_writer(tmp_path, "local", "a.tar", silent):  # noqa: SIM117 - one holds, one waits
        with pytest.raises(StoppedError), sole_writer(tmp_path, "local", "a.tar", stopping):
            pytest.fail("two writers at a time")


def test_unusable_state(tmp_path: Path) -> None:
    """A state folder that cannot be used is told with its place."""
    (tmp_path / "locks").write_text("in the way")
    with (
        pytest.raises(StorageError, match=r"lock folder .*/locks cannot be used"),
        sole_writer(tmp_path, "local", "a.tar", silent),
    ):
        pytest.fail("no lock")


def test_alone_in_cluster(
    tmp_path: Path, cluster_locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node that holds the lock is waited for, asked to let go, and no longer than that."""
    with sole_writer(tmp_path, "local", "a.tar", silent):
        (held,) = cluster_locks.iterdir()
    assert not held.exists()
    held.mkdir()
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    monkeypatch.setattr(lock, "_PAUSE", 0.05)
    with (
        pytest.raises(TargetUnavailableError, match="another node writes"),
        sole_writer(tmp_path, "local", "a.tar", silent),
    ):
        pytest.fail("two writers at a time")
    assert held.stat().st_mtime == 0
    held.rmdir()
    with sole_writer(tmp_path, "local", "a.tar", stopping):
        assert held.is_dir()


def test_refreshed(tmp_path: Path, cluster_locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is kept from expiring as long as it is held."""
    monkeypatch.setattr(lock, "_REFRESH", 0.01)
    with sole_writer(tmp_path, "local", "a.tar", silent):
        (held,) = cluster_locks.iterdir()
        before = held.stat().st_mtime_ns
        end = time.monotonic() + 5
        while held.stat().st_mtime_ns == before and time.monotonic() < end:
            time.sleep(0.01)
        assert held.stat().st_mtime_ns > before
