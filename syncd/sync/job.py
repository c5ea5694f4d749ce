"""A job: a reference to be brought up to date, why, and how that ended.

Pure values; the ledger keeps them and the worker runs them.
"""

from __future__ import annotations

import enum
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from syncd.oci import CallerLogin, Reference


class Cause(enum.StrEnum):
    """What asked for a job."""

    WEBHOOK = "webhook"
    SCHEDULE = "schedule"
    SWEEP = "sweep"
    RETRY = "retry"
    SIGNAL = "signal"
    API = "api"
    CLI = "cli"
    CALLER = "caller"
    """The API, for one caller alone, with what that caller logs in with."""


BACKLOG = frozenset({Cause.SCHEDULE, Cause.SWEEP, Cause.RETRY, Cause.SIGNAL})
"""The causes that bring many jobs at a time, which fresh work overtakes."""


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
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


_WORST_FIRST = (Result.FAILED, Result.CANCELLED, Result.PUBLISHED)


class LayerBytes(NamedTuple):
    """Bytes of layers that a job fetched, and those that were here, or parts of them.

    Where a template was made before, all are saved; a job that finds its template published needs
    none, and saves none.
    """

    fetched: int = 0
    saved: int = 0


NO_LAYERS = LayerBytes()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's end: the result, one sentence, and the volume ids that hold the template now.

    `warnings` are sentences for whoever waits for the job; the message has those on the image, too.
    `temporary` tells of a failure whether the same job may succeed later; the ledger does not keep
    it.
    """

    result: Result
    message: str
    volumes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    temporary: bool = False
    layers: LayerBytes = NO_LAYERS

    @property
    def failed(self) -> bool:
        """Whether the job failed."""
        return self.result is Result.FAILED

    @classmethod
    def together(cls, outcomes: Sequence[Outcome]) -> Outcome:
        """Return the outcome of several platforms of one reference, of which none failed."""
        published = any(outcome.result is Result.PUBLISHED for outcome in outcomes)
        return cls(
            Result.PUBLISHED if published else Result.UNCHANGED,
            "; ".join(dict.fromkeys(outcome.message for outcome in outcomes)),
            tuple(dict.fromkeys(volume for outcome in outcomes for volume in outcome.volumes)),
            tuple(dict.fromkeys(text for outcome in outcomes for text in outcome.warnings)),
            layers=_all_layers(outcomes),
        )


CANCELLED = Outcome(
    Result.CANCELLED, "cancelled on request; the next sweep looks at what is watched again"
)
"""The end of a job that somebody cancelled."""

ATTEMPTS_MAX = 3
"""How often a job may have begun when the daemon dies, before it is given up."""
GIVEN_UP = Outcome(
    Result.FAILED,
    f"given up: the daemon died {ATTEMPTS_MAX} times while this job ran; find out why "
    "(journalctl -u syncd; was it the memory?), then ask for it again (syncd sync)",
)
"""The end of a job that nobody runs any more, since the daemon died while it ran."""
LOGIN_GONE = Outcome(
    Result.INTERRUPTED,
    "syncd ended before this job did, and what its caller logged in with is gone: ask for it again",
)
"""The end of a caller's job that a stop or a crash interrupted."""

ABANDONED = Outcome(Result.INTERRUPTED, "the command ended before its job did")
"""The end of a command's job whose process is gone."""


@dataclass(frozen=True, slots=True)
class SyncJob:
    """One reference to be brought up to date.

    A reference with neither tag nor digest means every watched tag of its repository; such a
    job ends when the jobs of those tags have ended.  `login` is what a caller logs in with: only
    this process has it, and a job that was read from the ledger has none.
    """

    reference: Reference
    cause: Cause
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    login: CallerLogin | None = field(default=None, repr=False, compare=False)

    @property
    def is_private(self) -> bool:
        """Whether what becomes of the job is for its caller alone."""
        return self.login is not None and self.login.is_given


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the ledger knows it."""

    job: SyncJob
    state: State
    started: datetime | None = None
    finished: datetime | None = None
    outcome: Outcome | None = None


def outcome_of_tags(ends: Sequence[Outcome], warnings: Sequence[str]) -> Outcome:
    """Return how a repository's job ended, from the outcomes of its tags; the worst counts.

    `warnings` are those of the list of tags.
    """
    counts = Counter(end.result for end in ends)
    worst = next((result for result in _WORST_FIRST if counts[result]), Result.UNCHANGED)
    summary = ", ".join(f"{counts[result]} {result}" for result in Result if counts[result])
    failures = [end for end in ends if end.failed]
    messages = [f"watched tags: {summary or 'none found'}", *warnings]
    messages += [end.message for end in failures]
    return Outcome(
        worst,
        "; ".join(messages),
        tuple(volume for end in ends for volume in end.volumes),
        (*warnings, *(warning for end in ends for warning in end.warnings)),
        bool(failures) and all(end.temporary for end in failures),
        _all_layers(ends),
    )


def _all_layers(ends: Sequence[Outcome]) -> LayerBytes:
    return LayerBytes(
        sum(end.layers.fetched for end in ends), sum(end.layers.saved for end in ends)
    )
