"""What `convert.fork_server` promises: processes with nothing of the daemon, which die with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from syncd.convert.fork_server import Forked, ForkServer, Main
from syncd.errors import NoProcessError
from tests.convert.poisoned import telling, waiting
from tests.processes import is_gone, until


@contextmanager
def server(main: Main = waiting) -> Iterator[ForkServer]:
    """Give a server, and end it."""
    with closing(ForkServer(main)) as made:
        yield made


def number(process: Forked) -> int:
    """Return the process id that a waiting process tells."""
    process.connection.settimeout(20)
    return int(process.connection.recv(100))


def test_end() -> None:
    """The end of a process is told, with its status or the signal that killed it."""
    with server() as forks:
        for end, code in ((lambda one: one.connection.sendall(b"x"), 0), (Forked.kill, -9)):
            with closing(forks.fork()) as process:
                pid = number(process)
                end(process)
                assert process.ended(20) == code
                process.kill()
            assert is_gone(pid)


def test_nothing_of_the_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process has neither the environment nor the open files of the daemon, nor of others."""
    monkeypatch.setenv("A_SECRET", "in the environment")
    with (
        (tmp_path / "open").open("w") as file,
        server(telling) as forks,
        closing(forks.fork()) as first,
        closing(forks.fork()) as process,
    ):
        os.set_inheritable(file.fileno(), True)
        told = json.loads(process.connection.makefile().read())
        assert first.ended(20) == 0
        assert (told["parent"], told["name"]) == (forks.pid, "syncd-convert")
        assert "A_SECRET" not in told["environment"]
        links = {int(name): link for name, link in told["descriptors"].items()}
        beyond = {name: link for name, link in links.items() if name > 2}
        assert list(beyond) == [told["connection"]]


def test_cycles_are_looked_for_seldom() -> None:
    """Python does not look for cycles among what was loaded, and seldom among what comes."""
    with server(telling) as forks, closing(forks.fork()) as process:
        told = json.loads(process.connection.makefile().read())
        assert told["collected"] == 10_000
        assert told["frozen"] > 10_000


def test_signals_are_passed_over() -> None:
    """Signals that are for the daemon, and reach its whole group, end nothing else."""
    with server() as forks, closing(forks.fork()) as process:
        pid = number(process)
        assert forks.pid is not None
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(forks.pid, sent)
            os.kill(pid, sent)
        process.connection.sendall(b"still here")
        assert process.connection.recv(100) == b"still here"
        with closing(forks.fork()) as another:
            assert number(another)


def test_death_of_the_server() -> None:
    """A server that dies takes its processes along, and the next process has another server."""
    with server() as forks:
        with closing(forks.fork()) as process:
            pid, first = number(process), forks.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            assert process.ended(20) is None
            until(lambda: is_gone(pid))
        with closing(forks.fork()) as process:
            assert number(process) != pid
            assert forks.pid not in (first, None)


PROGRAM = """
import sys, time
from syncd.convert.fork_server import ForkServer
from tests.convert.poisoned import waiting
forks = ForkServer(waiting)
process = forks.fork()
print(forks.pid, int(process.connection.recv(100)), flush=True)
time.sleep(600)
"""


def test_death_of_the_daemon() -> None:
    """A daemon that is killed leaves no process behind."""
    daemon = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    with daemon:
        assert daemon.stdout is not None
        pids = [int(pid) for pid in daemon.stdout.readline().split()]
        assert not any(map(is_gone, pids))
        daemon.kill()
    assert len(pids) == 2
    until(lambda: all(map(is_gone, pids)))


def test_close() -> None:
    """A server that is closed has ended its processes, and makes no more."""
    forks = ForkServer(waiting)
    with closing(forks.fork()) as process:
        pid = number(process)
        forks.close()
        until(lambda: is_gone(pid))
    assert forks.pid is None
    with pytest.raises(NoProcessError, match="stopping"):
        forks.fork()


def test_no_fork() -> None:
    """A machine that has no room for a process is told of, and the server goes on."""

    def main(connection: socket.socket) -> None: ...

    main.__module__ = "tests.convert.no_fork"
    with server(main) as forks:
        for _ in range(2):
            with pytest.raises(NoProcessError, match=r"temporarily unavailable; .*TasksMax"):
                forks.fork()
        assert forks.pid is not None


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be started is an error that says why, and may pass."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with server() as forks, pytest.raises(NoProcessError, match="No such file") as told:
        forks.fork()
    assert told.value.temporary
