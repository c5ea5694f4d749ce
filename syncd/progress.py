"""How far running work is, and how running work is told to stop.

Work calls its `Advance` again and again; that call reports bytes and is where cancellation takes
effect, so no work needs a second way to be stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from syncd.errors import StoppedError

Pause = Callable[[float], object]
"""Waits so many seconds; may raise to give up."""
Advance = Callable[[int], None]
"""Takes how many bytes more are done; raises StoppedError when the work is to stop."""


class Progress(Protocol):
    """Hears how far a job is.  Called from several threads."""

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Hear that a step begins, of `total` bytes if that is known."""


class Silence:
    """A progress that nobody watches."""

    def begin(self, step: str, subject: str, total: int | None) -> Advance:  # noqa: ARG002 - unwatched
        """Take the bytes and say nothing."""
        return lambda _: None


class Stoppable:
    """A progress that passes on what it hears, and ends the work when the event is set."""

    def __init__(self, progress: Progress, stopping: threading.Event) -> None:
        self._progress = progress
        self._stopping = stopping

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Hear that a step begins; its advance raises StoppedError once the event is set."""
        tell = self._progress.begin(step, subject, total)

        def advance(amount: int) -> None:
            if self._stopping.is_set():
                raise StoppedError("syncd is stopping", "the job is resumed at the next start")
            tell(amount)

        return advance

    def pause(self, seconds: float) -> None:
        """Wait so long; raise StoppedError when the event is set meanwhile."""
        if self._stopping.wait(seconds):
            raise StoppedError("syncd is stopping", "the job is resumed at the next start")
