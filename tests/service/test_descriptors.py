"""What `service.descriptors` promises: descriptors for work, and a log that stays small."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from syncd.service.descriptors import http_limits, log_seldom, raised_limit
from syncd.web import HttpLimits
from tests.daemons import running
from tests.fakes.registry import Registry
from tests.harness import configure

RAISE = (
    "import resource; from syncd.service.descriptors import raised_limit; "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)); print(raised_limit()); "
    "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
)


def test_soft_limit() -> None:
    """The soft limit becomes the hard limit."""
    ended = subprocess.run(
        [sys.executable, "-c", RAISE], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout.split() == ["200", "200"]


@pytest.mark.parametrize(("forbidden", "found"), [("setrlimit", 50), ("getrlimit", 1024)])
def test_forbidden(forbidden: str, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a filter of system calls forbids to ask or to raise, the daemon starts all the same."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, 60))
    monkeypatch.setattr(resource, forbidden, refuse)
    assert raised_limit() == found


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(8192, 256), (1024, 256), (200, 50), (3, 1), (resource.RLIM_INFINITY, 256)],
)
def test_most_descriptors_are_kept_back(descriptors: int, connections: int) -> None:
    """Connections take a quarter of the descriptors at the most."""
    assert http_limits(descriptors).connections == connections
    assert HttpLimits().connections == 256


async def test_no_descriptor_left() -> None:
    """A hundred times that nothing can be accepted are one line; other faults are told as ever."""
    loop = asyncio.get_running_loop()
    log_seldom(loop)
    told: list[object] = []
    with structlog.testing.capture_logs() as logs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "default_exception_handler", told.append)
        for _ in range(100):
            exc = OSError(24, "Too many open files")
            loop.call_exception_handler({"message": "m", "exception": exc, "socket": None})
        loop.call_exception_handler({"message": "m", "exception": exc})
        loop.call_exception_handler({"message": "m", "exception": OSError(5, "I/O"), "socket": 1})
    assert [line["event"] for line in logs] == ["no connection can be accepted"]
    assert len(told) == 2


def test_daemon_at_its_limit(tmp_path: Path, registry: Registry) -> None:
    """Hundreds of connections leave a daemon with few descriptors at work, and its log small."""
    with running(tmp_path, configure(tmp_path, registry)) as daemon:
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (60, 60))
        host, _, port = daemon.url.removeprefix("http://").partition(":")
        silent = [socket.create_connection((host, int(port)), timeout=5) for _ in range(100)]
        time.sleep(2)
        lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
        assert len(lines) < 20
        assert "no connection can be accepted" in [line["event"] for line in lines]
        for one in silent:
            one.close()
        time.sleep(1.5)  # asyncio accepts again after a second
        assert daemon.ask("/healthz")["status"] == "ok"
        daemon.end()
