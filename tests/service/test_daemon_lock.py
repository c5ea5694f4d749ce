"""What `daemon_lock` promises: one daemon for one state, and a sentence where there can be none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from syncd.errors import ConfigError
from syncd.service.daemon_lock import daemon_lock, lock_holder


def test_one_daemon(tmp_path: Path) -> None:
    """A second daemon hears which process has the state; the lock is free when that one ends."""
    path = tmp_path / "state" / "lock"
    refused = pytest.raises(ConfigError, match=f"process id {os.getpid()} uses the state")
    with daemon_lock(path), refused, daemon_lock(path):
        pytest.fail("two daemons have one state")
    with daemon_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_holder(tmp_path: Path) -> None:
    """Who holds the lock is told while it is held, and not by what the file says afterwards."""
    path = tmp_path / "lock"
    assert lock_holder(path) is None
    with daemon_lock(path):
        assert lock_holder(path) == os.getpid()
    assert lock_holder(path) is None
    path.write_text("nonsense")
    assert lock_holder(path) is None


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "make room"), (errno.EROFS, "check state.directory")]
)
def test_full_disk(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes no more bytes of a file that it has is told with the file and a remedy."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))  # as pwrite(2) does: without a file's name

    path = tmp_path / "lock"
    monkeypatch.setattr("os.pwrite", refuse)
    with (
        pytest.raises(ConfigError, match=f"{path} cannot be written: .*; {remedy}"),
        daemon_lock(path),
    ):
        pytest.fail("a daemon runs that nobody could name")


def test_not_the_users_error(tmp_path: Path) -> None:
    """What fails while the lock is held is not told as a fault of the lock."""
    with pytest.raises(ConnectionResetError), daemon_lock(tmp_path / "lock"):
        raise ConnectionResetError
