"""A job: one reference to be brought up to date, why, and how it ended.

Pure values, and the `Progress` by which a running job tells how far it is.
"""

from __future__ import annotations

import enum
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from syncd.errors import SyncdError
from syncd.reference import Reference


class Cause(enum.StrEnum):
    """What asked for a job."""

    WEBHOOK = "webhook"
    SCHEDULE = "schedule"
    SWEEP = "sweep"
    SIGNAL = "signal"
    API = "api"
    CLI = "cli"


class State(enum.StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Result(enum.StrEnum):
    """How a job ended."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's end: the result, one sentence, and the volume ids that hold the template now."""

    result: Result
    message: str
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncJob:
    """One reference to be brought up to date.

    A reference with neither tag nor digest means every watched tag of its repository; such a
    job ends when the jobs of those tags have ended.
    """

    reference: Reference
    cause: Cause
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the ledger knows it."""

    job: SyncJob
    state: State
    started: datetime | None = None
    finished: datetime | None = None
    outcome: Outcome | None = None


class StoppedError(SyncdError):
    """The daemon is stopping; the job stays in the ledger and is resumed at the next start."""

    temporary = True


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
