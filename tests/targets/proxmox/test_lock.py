"""One writer at a time, on a host and where pmxcfs is."""

from __future__ import annotations

import errno
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from syncd.errors import StoppedError, StorageError, TargetUnavailableError
from syncd.targets.proxmox import lock
from syncd.targets.proxmox.lock import sole_writer
from tests.fakes.pve_pmxcfs import EXPIRY, Pmxcfs


def silent(_: int) -> None:
    """Hear nothing."""


def stopping(_: int) -> None:
    """Be in a hurry."""
    raise StoppedError("stopping")


@pytest.fixture
def pmxcfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pmxcfs:
    """Have the folder of pmxcfs's locks, and waits that take no time to speak of."""
    folder = tmp_path / "priv-lock"
    monkeypatch.setattr(lock, "CLUSTER_LOCKS", folder)
    monkeypatch.setattr(lock, "_PATIENCE", 5)
    monkeypatch.setattr(lock, "_PAUSE", 0.02)
    return Pmxcfs(folder, monkeypatch)


def lock_name(tmp_path: Path, pmxcfs: Pmxcfs) -> str:
    """Return the name of the cluster lock of `local` and `a.tar`."""
    with sole_writer(tmp_path / "locks", "local", "a.tar", silent):
        (held,) = pmxcfs.folder.iterdir()
    assert not held.exists()
    return held.name


def test_alone_on_host(tmp_path: Path) -> None:
    """A second writer of one name waits until the first is done."""
    order: list[str] = []
    begun = threading.Event()

    def second() -> None:
        begun.set()
        with sole_writer(tmp_path / "locks", "local", "a.tar", silent):
            order.append("second")

    with sole_writer(tmp_path / "locks", "local", "a.tar", silent):
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
            stack.enter_context(sole_writer(tmp_path / "locks", storage, name, stopping))


def test_stopped(tmp_path: Path) -> None:
    """A job that is to stop does not wait on."""
    with sole_writer(tmp_path / "locks", "local", "a.tar", silent):  # noqa: SIM117 - one holds, one waits
        with (
            pytest.raises(StoppedError),
            sole_writer(tmp_path / "locks", "local", "a.tar", stopping),
        ):
            pytest.fail("two writers at a time")


def test_unusable_state(tmp_path: Path) -> None:
    """A state folder that cannot be used is told with its place."""
    (tmp_path / "locks").write_text("in the way")
    with (
        pytest.raises(StorageError, match=r"lock folder .*/locks cannot be used"),
        sole_writer(tmp_path / "locks", "local", "a.tar", silent),
    ):
        pytest.fail("no lock")


def test_held_elsewhere(tmp_path: Path, pmxcfs: Pmxcfs) -> None:
    """A lock that another node holds is waited for, and taken once the other node is done."""
    held = pmxcfs.hold(lock_name(tmp_path, pmxcfs))
    waits: list[int] = []

    def wait(amount: int) -> None:
        waits.append(amount)
        if len(waits) == 3:
            held.rmdir()

    with sole_writer(tmp_path / "locks", "local", "a.tar", wait):
        assert held.is_dir()
    assert waits == [0, 0, 0]
    assert pmxcfs.refused_releases == 3


def test_held_too_long(tmp_path: Path, pmxcfs: Pmxcfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for another node has an end, and the error tells what is known of the holder."""
    pmxcfs.hold(lock_name(tmp_path, pmxcfs), age=40)
    monkeypatch.setattr(lock, "_PATIENCE", 0.1)
    with (
        pytest.raises(
            TargetUnavailableError,
            match=r"a\.tar in local: .*another node .*refreshed 4\d s ago",
        ) as failure,
        sole_writer(tmp_path / "locks", "local", "a.tar", silent),
    ):
        pytest.fail("two writers at a time")
    assert "quorum" not in str(failure.value)


def test_left_by_crash(tmp_path: Path, pmxcfs: Pmxcfs) -> None:
    """A lock that a crash left is taken in the first attempt after it has expired."""
    held = pmxcfs.hold(lock_name(tmp_path, pmxcfs), age=EXPIRY + 1)
    with sole_writer(tmp_path / "locks", "local", "a.tar", stopping):
        assert time.time() - held.stat().st_mtime < EXPIRY


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_no_quorum(tmp_path: Path, pmxcfs: Pmxcfs, refusal: int) -> None:
    """Where pmxcfs takes no writes, nobody waits, and the error tells of the quorum."""
    pmxcfs.refusal = refusal
    with (
        pytest.raises(TargetUnavailableError, match=r"cannot be written.*quorum: pvecm status"),
        sole_writer(tmp_path / "locks", "local", "a.tar", stopping),
    ):
        pytest.fail("no lock")


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EROFS])
def test_quorum_lost(tmp_path: Path, pmxcfs: Pmxcfs, refusal: int) -> None:
    """A lock that is held when writing ends is not waited for: nobody can release it."""
    pmxcfs.hold(lock_name(tmp_path, pmxcfs))
    if refusal == errno.EACCES:
        pmxcfs.lose_quorum()
    pmxcfs.refusal = refusal
    with (
        pytest.raises(TargetUnavailableError, match=r"cannot be written.*quorum: pvecm status"),
        sole_writer(tmp_path / "locks", "local", "a.tar", stopping),
    ):
        pytest.fail("no lock")


def test_no_pmxcfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no pmxcfs is in reach, the lock of the host is the only lock."""
    monkeypatch.setattr(lock, "CLUSTER_LOCKS", tmp_path / "absent")
    with sole_writer(tmp_path / "locks", "local", "a.tar", stopping):
        assert not (tmp_path / "absent").exists()


def test_refreshed(tmp_path: Path, pmxcfs: Pmxcfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is kept from expiring as long as it is held."""
    monkeypatch.setattr(lock, "_REFRESH", 0.01)
    with sole_writer(tmp_path / "locks", "local", "a.tar", silent):
        (held,) = pmxcfs.folder.iterdir()
        before = held.stat().st_mtime_ns
        end = time.monotonic() + 5
        while held.stat().st_mtime_ns == before and time.monotonic() < end:
            time.sleep(0.01)
        assert held.stat().st_mtime_ns > before
