"""What `systemd` promises: the service manager is told, and never holds the loop up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.service.systemd import tell_systemd, watchdog


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket of a service manager, which reads when a test does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "manager"))
        bound.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
        yield bound


def test_told(manager: socket.socket) -> None:
    """The manager gets each state as one message."""
    tell_systemd("READY=1\nSTATUS=Running")
    tell_systemd("STOPPING=1")
    assert [manager.recv(100) for _ in range(2)] == [b"READY=1\nSTATUS=Running", b"STOPPING=1"]


def test_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a manager, or with one that is gone, nothing is told and nothing fails."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    tell_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    tell_systemd("READY=1")


async def test_a_manager_that_does_not_read(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings that find the manager's queue full are left out, and the loop goes on."""
    monkeypatch.setenv("WATCHDOG_USEC", "200")
    held_up = threading.Event()

    def let_go() -> None:
        held_up.set()
        while not pinging.done():
            manager.recv(100)

    rescue = threading.Timer(60, let_go)
    rescue.start()
    pinging = asyncio.create_task(watchdog())
    for _ in range(500):
        await asyncio.sleep(0.0002)
    pinging.cancel()
    rescue.cancel()
    assert not held_up.is_set()
    assert manager.recv(100) == b"WATCHDOG=1"
