"""Run the programs of the end-to-end tests, and wait for what they bring about.

A program that fails stops the test with everything it wrote, because the reason is nearly always
there.  Everything the tests write lies below `.e2e/` of the checkout: `CACHE` outlives a run and
belongs to all processes of one, `SCRATCH` to this process; the next `tests/e2e/run` empties it, so
it can be looked at until then.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".e2e" / "cache"
SCRATCH = CHECKOUT / ".e2e" / "scratch" / os.environ.get("PYTEST_XDIST_WORKER", "alone")

T = TypeVar("T")


class CommandError(AssertionError):
    """A program of the test's surroundings failed; the message holds what it wrote."""


def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
) -> str:
    """Run a program to its end and return its standard output.

    `env` is added to this process's environment.  Raise CommandError when the program fails or
    takes longer than `timeout` seconds.
    """
    done = attempt(*argv, env=env, cwd=cwd, timeout=timeout)
    if done.returncode:
        raise CommandError(
            f"{' '.join(done.args)}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def attempt(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit status, and return all of it."""
    command: Sequence[str] = [os.fspath(word) for word in argv]
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CommandError(f"{' '.join(command)}\ntook longer than {timeout} s") from exc


def stop(process: subprocess.Popen[bytes], timeout: float = 20) -> int:
    """Ask a process to end (SIGTERM) and return its exit status.

    Raise CommandError when it is still there after `timeout` seconds; it is killed then.
    """
    process.terminate()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        process.wait()
        raise CommandError(f"{process.args!r} did not end within {timeout} s of SIGTERM") from exc


def wait_for(what: str, ask: Callable[[], T | None], timeout: float, pause: float = 0.05) -> T:
    """Call `ask` every `pause` seconds until it returns something true, and return that.

    Raise CommandError naming `what` after `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not (answer := ask()):
        if time.monotonic() > end:
            raise CommandError(f"waited {timeout} s in vain for {what}")
        time.sleep(pause)
    return answer


@contextmanager
def alone_with(name: str) -> Iterator[None]:
    """Wait until no other process of the tests uses what `name` stands for; use it until the end.

    The kernel frees the lock of a process that dies (flock(2)).
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def making(file: Path) -> Iterator[bool]:
    """Yield whether `file` of the cache is to be made; until the end no other process makes it."""
    with alone_with(file.name):
        yield not file.exists()


def files_below(folder: Path) -> set[str]:
    """Return the paths of all files below `folder` relative to it, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
