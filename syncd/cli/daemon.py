"""The running daemon of a configuration, asked by commands over its Unix socket.

A command that finds the daemon leaves all work to it: two processes do not fetch the same image,
and whoever types needs no right to the state.  Without a daemon the command does the work itself.
A daemon of another state is never asked: each state has a socket of its own, and the daemon says
which state it has.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from syncd.cli import console
from syncd.cli.app import warn
from syncd.config import Config, likely_socket, load_config
from syncd.errors import ConfigError, RequestError, SyncdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from syncd.progress import Advance, Progress
    from syncd.sync import JobView

SHORT = 30.0
"""Seconds for an answer that needs nothing but the ledger."""
LONG = 7200.0
"""Seconds for an answer that may wait for registries, targets, or a file that is read whole."""

_POLL = 25  # seconds that the daemon waits for the end of a job before it answers
_GLANCE = 1  # the same, where somebody watches the job
_PAUSE = 1.0  # seconds between two looks at a job that the daemon cannot wait for
_ANSWER_MAX = 256 << 20  # bytes
_NOT_YOU = "root may ask it, and members of the group syncd may look (adduser YOU syncd)"
_LOOK = "see journalctl -u syncd"


class _Connection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect; raise OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Daemon:
    """A daemon that listens on a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, path: str, within: float = SHORT, /, **query: str | int) -> Any:
        """Return what the daemon tells below `/api/v1/`; as `post` otherwise."""
        asked = f"?{urlencode(query)}" if query else ""
        return self._ask("GET", f"{path}{asked}", None, within)

    def post(self, path: str, body: Mapping[str, object], within: float = SHORT) -> Any:
        """Ask for something below `/api/v1/`, and return the answer's JSON.

        Raise SyncdError, with the daemon's own words where it refuses, or when no answer comes
        within so many seconds.
        """
        return self._ask("POST", path, body, within)

    def finished(self, job: JobView, progress: Progress | None = None) -> JobView:
        """Wait for the end of a job, and show how far it is; return it as it is then."""
        wait = _POLL if progress is None else _GLANCE
        step, done = ("", ""), 0
        advance: Advance = _nothing
        while job["state"] != "done":
            begun = time.monotonic()
            job = self.get(f"jobs/{job['id']}", wait + SHORT, wait=wait)
            told = job["progress"]
            if told is not None and progress is not None:
                if step != (told["step"], told["subject"]):
                    step, done = (told["step"], told["subject"]), 0
                    advance = progress.begin(*step, told["total"])
                advance(told["done"] - done)
                done = told["done"]
            if job["state"] != "done" and time.monotonic() - begun < _PAUSE:
                time.sleep(_PAUSE)
        return job

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None, within: float) -> Any:
        connection = _Connection(self._path, within)
        sent = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"/api/v1/{path}", sent)
            answer = connection.getresponse()
            read = answer.read(_ANSWER_MAX + 1)
            if len(read) > _ANSWER_MAX:
                raise SyncdError(f"the daemon at {self._path} answers with too much")
            told = json.loads(read)
        except TimeoutError as exc:
            raise SyncdError(
                f"the daemon at {self._path} gave no answer within {within:g} s", _LOOK
            ) from exc
        except PermissionError as exc:
            raise SyncdError(f"the daemon at {self._path} does not answer you", _NOT_YOU) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise SyncdError(
                f"the daemon at {self._path} broke off: {exc or type(exc).__name__}", _LOOK
            ) from exc
        finally:
            connection.close()
        if answer.status < 300:
            return told
        said = str(told.get("error")) if isinstance(told, dict) else f"status {answer.status}"
        raise (RequestError if answer.status in (400, 422) else SyncdError)(said)


def running_daemon(config: Config) -> Daemon | None:
    """Return the daemon of a configuration's state, or None where none runs.

    Raise SyncdError where one runs that does not answer whoever types, or has another state.
    """
    path = config.socket
    daemon = _listening(path)
    if daemon is None:
        return None
    theirs, ours = Path(daemon.get("daemon")["state"]), config.state.directory.absolute()
    if theirs != ours and theirs.resolve() != ours.resolve():
        raise SyncdError(
            f"the daemon at {path} has the state {theirs}, and this configuration has {ours}",
            "give each state its own server.socket",
        )
    return daemon


def daemon_or_config(path: Path | None) -> Daemon | Config:
    """Return the running daemon of a configuration's file, or the configuration where none runs.

    For commands that only look: a daemon that runs goes on with what the file was before it got a
    fault, and is asked, with a warning.  Raise SyncdError as `load_config` and `running_daemon`.
    """
    try:
        config = load_config(path)
    except ConfigError as exc:
        daemon = _of_faulty(path)
        if daemon is None:
            raise
        warn([f"the running daemon, which has read {path} before, is asked: {exc}"])
        return daemon
    return running_daemon(config) or config


def same_file(theirs: str | None, ours: Path | None) -> bool:
    """Tell whether the file that a daemon has read is the file that a command was given."""
    if theirs is None or ours is None:
        return theirs is None and ours is None
    try:
        return theirs == str(ours.absolute()) or ours.samefile(theirs)
    except OSError:
        return False


def _of_faulty(path: Path | None) -> Daemon | None:
    """Return the daemon that runs a file which has faults now; None where it cannot be found."""
    if path is None:
        return None
    try:
        daemon = _listening(likely_socket(path))
        return daemon if daemon and same_file(daemon.get("daemon")["config"], path) else None
    except SyncdError:
        return None


def _listening(path: Path) -> Daemon | None:
    """Return the daemon that listens on a socket, or None; raise SyncdError if it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(SHORT)
            probe.connect(str(path))
        except PermissionError as exc:
            raise SyncdError(f"the daemon at {path} does not answer you", _NOT_YOU) from exc
        except OSError:  # nobody listens there; or the path is too long, so that nobody can
            return None
    return Daemon(path)


def _nothing(_: int) -> None:
    """Show no bytes: no step has begun."""


@contextmanager
def left_to_daemon(what: str) -> Iterator[None]:
    """Say of a command that is interrupted in this context that the daemon goes on."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        console.complain(f"syncd: the daemon goes on with {what}")
        raise
