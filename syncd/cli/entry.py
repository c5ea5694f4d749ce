"""The entry point: runs the command line, and ends with one sentence when something fails."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from types import FrameType
from typing import TextIO

from syncd.allocator import collect_seldom
from syncd.errors import ConfigError, InvalidReferenceError, RequestError, SyncdError

_GRACE = 1.0  # seconds in which an interrupted command may tidy up


def main() -> None:
    """Run `syncd`; exit 0 when done, 1 when failed, 2 on bad usage or configuration."""
    collect_seldom()
    atexit.register(gc.freeze)  # what the process holds at its end goes with it, unexamined
    from syncd.cli import commands, console

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _interrupt)
    try:
        commands.app()
    except SyncdError as exc:
        console.complain(f"syncd: {exc}")
        usage = ConfigError | InvalidReferenceError | RequestError
        sys.exit(2 if isinstance(exc, usage) else 1)
    except OSError as exc:
        # Foreign errors become SyncdErrors where they are met; what is left is told by the
        # file that it names, if any.
        _discard(sys.stdout)
        if exc.filename == console.PRINTED:
            console.complain(f"syncd: standard output does not take more: {exc.strerror}")
        elif exc.filename is not None:
            console.complain(f"syncd: {exc.filename}: {exc.strerror}")
        else:
            console.complain(f"syncd: {exc}")
        sys.exit(1)


def _discard(stream: TextIO) -> None:
    """Let the stream's buffer go nowhere: Python would complain of it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _interrupt(number: int, _: FrameType | None) -> None:
    """End the command as on Ctrl-C, tidily, but without waiting for a thread on a silent peer."""
    timer = threading.Timer(_GRACE, os._exit, (128 + number,))
    timer.daemon = True
    timer.start()
    sys.exit(128 + number)
