"""A small process that forks others: each has everything loaded, and its death is its own.

A process of many threads cannot fork itself safely, and a new interpreter takes a tenth of a second
to load what a conversion needs.  So a server of one thread loads it once, and forks a process in a
millisecond whenever it is asked.  No environment, no secret and no open file of the daemon comes
into it.  What it forks dies with it, and it ends when the daemon does; both pass over the signals
that are meant for the daemon, since systemd and a terminal send these to all processes of a unit
or group.

Source: prctl(2), PR_SET_PDEATHSIG; pidfd_open(2); unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from syncd.allocator import collect_seldom
from syncd.errors import NoProcessError

_START = 30.0  # seconds for a process to begin
_END = 5.0  # seconds for the server to end by itself
_MESSAGE = 1000  # bytes of a message of the server at most
_ENVIRONMENT = ("LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")
_PASSED_OVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h
_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from syncd.convert.fork_server import serve
from {module} import {name}
serve({name}, int(sys.argv[2]))
"""

Main = Callable[[socket.socket], None]
"""What a forked process does: a function of a module, which gets a connected socket."""


class Forked:
    """A process that was forked: a connection with it, and its end."""

    def __init__(self, connection: socket.socket, report: socket.socket, pidfd: int) -> None:
        self.connection = connection
        self._report = report
        self._pidfd = pidfd

    def kill(self) -> None:
        """Kill the process, unless it ended already."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def ended(self, timeout: float) -> int | None:
        """Wait for the end of the process; return its exit code, -N where signal N killed it.

        Return None where nobody can tell: its server is gone, too, or it does not end so soon.
        """
        self._report.settimeout(timeout)
        with suppress(OSError, ValueError):
            return int(self._report.recv(_MESSAGE))
        return None

    def close(self) -> None:
        """Let go of the process, which goes on if it still runs."""
        self.connection.close()
        self._report.close()
        os.close(self._pidfd)


class ForkServer:
    """Forks processes that call `main`.

    The server is started when it is first needed, and anew where it died.  Safe to use from several
    threads.
    """

    def __init__(self, main: Main) -> None:
        self._main = main
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None where it does not run."""
        server = self._server
        return server.pid if server is not None and server.poll() is None else None

    def fork(self) -> Forked:
        """Return a new process; raise NoProcessError when the machine gives none."""
        ours, theirs = socket.socketpair()
        report, reporter = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pidfds: list[int] = []
        try:
            with theirs, reporter:
                self._request([theirs.fileno(), reporter.fileno()])
            report.settimeout(_START)
            said, pidfds, _, _ = socket.recv_fds(report, _MESSAGE, 1)
            if not pidfds:
                raise _none(said.decode(errors="replace") or "their server died")
        except OSError as exc:
            raise _none(exc.strerror or str(exc)) from exc
        finally:
            if not pidfds:
                ours.close()
                report.close()
        return Forked(ours, report, pidfds[0])

    def close(self) -> None:
        """End the server and what it forked; nothing is forked any more."""
        with self._lock:
            self._closed = True
            if self._requests is not None:
                self._requests.close()
            if self._server is not None:
                try:
                    self._server.wait(_END)
                except subprocess.TimeoutExpired:
                    self._server.kill()
                    self._server.wait()
            self._server = self._requests = None

    def _request(self, descriptors: list[int]) -> None:
        """Send a request to the server that runs, or to a new one."""
        with self._lock:
            if self._closed:
                raise NoProcessError("syncd is stopping, and converts nothing any more")
            if self._requests is not None and self.pid is not None:
                with suppress(ConnectionError):
                    socket.send_fds(self._requests, [b"fork"], descriptors)
                    return
            socket.send_fds(self._started(), [b"fork"], descriptors)

    def _started(self) -> socket.socket:
        """Start the server; return the socket for requests to it."""
        if self._requests is not None:
            self._requests.close()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            program = _PROGRAM.format(module=self._main.__module__, name=self._main.__name__)
            given = json.dumps(sys.path), str(theirs.fileno())
            self._server = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-I", "-c", program, *given],
                stdin=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                pass_fds=[theirs.fileno()],
            )
        return self._requests


def _none(reason: str) -> NoProcessError:
    return NoProcessError(
        f"no process can be started to convert in: {reason}",
        "check the memory and the number of processes (TasksMax) of the service",
    )


def _prctl(option: int, value: bytes | int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def serve(main: Main, descriptor: int) -> NoReturn:
    """Be the server: fork at each request on the socket `descriptor`, until nobody is there."""
    _prctl(_PR_SET_NAME, b"syncd-forks")  # for ps, and the kernel's log
    for number in _PASSED_OVER:
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()  # a process that dies of its own fault says where
    # What is loaded is never collected, so that the forked processes go on sharing its memory.
    gc.collect()
    gc.freeze()
    collect_seldom()
    _Server(main, socket.socket(fileno=descriptor)).run()


class _Child(NamedTuple):
    pid: int
    report: socket.socket


class _Server:
    """The loop of the server: requests come in, and the ends of processes go out."""

    def __init__(self, main: Main, requests: socket.socket) -> None:
        self._main = main
        self._requests = requests
        self._children: dict[int, _Child] = {}  # by pidfd, which can be read once they end
        self._waiting = select.poll()
        self._waiting.register(requests, select.POLLIN)

    def run(self) -> NoReturn:
        while True:
            for ready, _ in self._waiting.poll():
                if ready in self._children:
                    self._reap(ready)
                else:
                    self._take()

    def _take(self) -> None:
        _, descriptors, _, _ = socket.recv_fds(self._requests, _MESSAGE, 2)
        if len(descriptors) < 2:
            os._exit(0)  # the daemon is gone
        connection, report = (socket.socket(fileno=number) for number in descriptors)
        with connection:
            self._fork(connection, report)

    def _fork(self, connection: socket.socket, report: socket.socket) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            with report, suppress(OSError):
                report.send((exc.strerror or str(exc)).encode())
            return
        if not pid:
            self._be_child(server, connection, report)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = _Child(pid, report)
        self._waiting.register(pidfd, select.POLLIN)
        with suppress(OSError):  # whoever asked is gone; the process finds out by itself
            socket.send_fds(report, [b"forked"], [pidfd])

    def _be_child(self, server: int, connection: socket.socket, report: socket.socket) -> NoReturn:
        status = 1
        try:
            _prctl(_PR_SET_NAME, b"syncd-convert")
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == server:
                for pidfd, child in self._children.items():
                    child.report.close()
                    os.close(pidfd)
                report.close()
                self._requests.close()
                self._main(connection)
                status = 0
        except BaseException:  # noqa: BLE001 - the process has no other way to tell
            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        self._waiting.unregister(pidfd)
        child = self._children.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        with child.report, suppress(OSError):
            child.report.send(b"%d" % os.waitstatus_to_exitcode(status))
