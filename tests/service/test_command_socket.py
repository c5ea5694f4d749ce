"""What `command_socket` promises: one daemon listens, and only those who may connect do."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from syncd.errors import ConfigError
from syncd.service.command_socket import command_socket


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("group", "expected"), [(None, 0o600), (os.getegid(), 0o660)])
def test_mode(group: int | None, expected: int, tmp_path: Path) -> None:
    """The file lets its owner in, and the group where there is one; it goes with the daemon."""
    path = tmp_path / "run" / "sock"
    with command_socket(path, group) as bound:
        assert mode(path) == expected
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(str(path))
        bound.listen()
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(path))
    assert not path.exists()


def test_dead_socket(tmp_path: Path) -> None:
    """What a dead daemon left is replaced."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with command_socket(path, None) as bound:
        bound.listen()


def test_listened_on(tmp_path: Path) -> None:
    """A socket that somebody listens on stays, and is told."""
    path = tmp_path / "sock"
    with command_socket(path, None) as bound:
        bound.listen()
        with pytest.raises(ConfigError, match="another daemon listens"), command_socket(path, None):
            pass
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(path))


def test_not_to_be_made(tmp_path: Path) -> None:
    """A path that cannot be a socket is told, and a file that lies there stays."""
    (tmp_path / "file").write_text("mine")
    for path, message in [
        (tmp_path / "file", "no socket"),
        (tmp_path / "file" / "sock", "Not a directory|File exists"),
        (tmp_path / ("x" * 120), "too long"),
    ]:
        with pytest.raises(ConfigError, match=message), command_socket(path, None):
            pass
    assert (tmp_path / "file").read_text() == "mine"
