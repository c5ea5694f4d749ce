"""A person at a terminal: a command runs on a terminal of its own, is read, and is typed to.

    with Terminal(["init"], cwd=folder, env={}) as terminal:
        terminal.answer("Images to watch", "ghcr.io/owner/image")
        assert terminal.end() == 0

The terminal is the controlling one of the command's session, so ^C is a signal, and passwords are
read from it unseen.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

_PATIENCE = 60.0  # seconds without the awaited words after which the test has failed
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'syncd', *sys.argv[1:]])"
)


class Terminal:
    """A command on a terminal; `shown` is all that the terminal has shown so far."""

    def __init__(self, words: Sequence[object], cwd: Path, env: Mapping[str, str]) -> None:
        self.shown = ""
        self._seen = 0  # how much of it has been awaited
        self._leader, follower = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *map(str, words)],
            cwd=cwd,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), "TERM": "dumb", **env},
        )
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)

    def await_words(self, words: str) -> None:
        """Return once the terminal shows these words, behind those that were awaited before."""
        end = time.monotonic() + _PATIENCE
        while (found := self.shown.find(words, self._seen)) < 0:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"{words!r} did not come:\n{self.shown}")
        self._seen = found + len(words)

    def type(self, text: str) -> None:
        """Type something, as it is."""
        os.write(self._leader, text.encode())

    def answer(self, question: str, text: str) -> None:
        """Wait for a question and its colon, and answer it."""
        self.await_words(question)
        self.await_words(": ")
        self.type(f"{text}\n")

    def interrupt(self) -> int:
        """Press ^C until the command has ended; return its exit code.

        A signal that comes just before Python blocks in its read is kept until the read ends, so a
        single ^C may seem to do nothing (signal(7), EINTR).
        """
        end = time.monotonic() + _PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
        return self.end()

    def end(self) -> int:
        """Return the exit code, once everything that was printed is read."""
        end = time.monotonic() + _PATIENCE
        while self._read(end - time.monotonic()):
            pass
        return self.process.wait(_PATIENCE)

    def _read(self, seconds: float) -> bool:
        """Read what is there within so many seconds; return whether there may be more."""
        ready, _, _ = select.select([self._leader], [], [], max(seconds, 0))
        try:
            read = os.read(self._leader, 65536) if ready else b""
        except OSError:  # EIO: the command has ended (tty_ioctl(4))
            read = b""
        self.shown += read.decode(errors="replace").replace("\r\n", "\n")
        return bool(read)
