"""What a process counts while it works: kept in memory, and added to the ledger now and then.

Counting waits for no disk, so it is done in the midst of work, by any thread.  The totals are those
of the ledger and what was counted since: they never go back, and a restart goes on with them.  What
a crash takes is at most what was counted since the last `write`.

Ends of jobs are not counted here: the ledger counts them as it writes them down
(`syncd.sync.total_rows`).
"""

from __future__ import annotations

import enum
import math
import threading
from bisect import bisect_left
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from syncd.sync.total_rows import Series, TotalRows

T = TypeVar("T")

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, math.inf)
"""Seconds that a duration is compared with: from a look to the pull of a large image."""
SUM = "sum"
"""In place of a bound: the seconds of all durations of a series."""


class Step(enum.StrEnum):
    """A step of a job.  A step that fails has no duration."""

    QUEUE = "queue"
    """Until the job begins: its queue, and its turn among the jobs of its registry."""
    RESOLVE = "resolve"
    """What the tag means now, by the registry."""
    LOOK = "look"
    """Whether the targets list the template."""
    READ = "read"
    """The image's documents, by the registry."""
    PULL = "pull"
    """A place to convert in, and the layers, which are unpacked while they come."""
    FLATTEN = "flatten"
    """The layers laid over each other, and written as a template."""
    PUBLISH = "publish"
    """The template in one target."""
    RETAIN = "retain"
    """Old versions deleted."""


class Instead(enum.StrEnum):
    """What a job had instead of fetching a layer, or a part of it."""

    TEMPLATE = "template"
    """The image's finished template."""
    UNPACKED = "unpacked"
    """The layer as it was kept unpacked."""
    BLOB = "blob"
    """The layer's blob in the cache."""
    PARTS = "parts"
    """Parts of the layer, of which only others were fetched."""


class Reception(enum.StrEnum):
    """What became of a webhook's delivery."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """It had been accepted before."""
    IGNORED = "ignored"
    """It is authentic, and concerns nothing that is watched."""
    REFUSED = "refused"
    """It is not authentic, or no delivery at all."""
    FAILED = "failed"
    """syncd could not take it: no secret is configured, or the ledger gave no answer."""


class Redelivery(enum.StrEnum):
    """What became of asking GitHub for a delivery that was missed."""

    ASKED = "asked"
    REFUSED = "refused"


class Reload(enum.StrEnum):
    """What became of a reload of the configuration."""

    APPLIED = "applied"
    REJECTED = "rejected"


class Handing(enum.StrEnum):
    """What became of an attempt to hand a notification to all receivers."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """Some receiver does not have it yet; it is tried again."""
    DROPPED = "dropped"
    """It is too old, or there are too many, and some receiver never got it."""


class Ending(enum.StrEnum):
    """How a sweep, or a look at GitHub's deliveries, ended."""

    COMPLETED = "completed"
    BROKEN_OFF = "broken_off"


class Counted(enum.StrEnum):
    """What is counted, and by which labels, in their order."""

    DELIVERIES = "deliveries"
    """Deliveries of webhooks: their result."""
    REDELIVERIES = "redeliveries"
    """Missed deliveries that GitHub was asked for: the result."""
    DELIVERY_LOOKS = "delivery_looks"
    """Looks for missed deliveries: their result."""
    RELOADS = "reloads"
    """Reloads of the configuration: their result."""
    NOTIFICATIONS = "notifications"
    """Attempts to deliver notifications: their result."""
    SWEEPS = "sweeps"
    """Sweeps: their result."""
    SWEEP_SECONDS = "sweep_seconds"
    """The durations of completed sweeps."""
    STEP_SECONDS = "step_seconds"
    """The durations of a job's steps: the step."""
    SAVED = "saved"
    """Bytes of layers that conversions did not fetch: what they had instead."""
    REQUESTS = "requests"
    """Requests to registries: the registry, and the code of the answer."""
    REQUEST_SECONDS = "request_seconds"
    """The durations of these requests until their headers came: the registry."""
    FETCHED = "fetched"
    """Bytes of documents and blobs from registries: the registry."""
    WAITED = "waited"
    """Seconds of waits before requests, as registries asked or to spare them: the registry."""


class Tally:
    """Counts what happens.  Safe to use from several threads."""

    def __init__(self, rows: TotalRows) -> None:
        """Go on with the totals of the ledger; raise LedgerError."""
        self._rows = rows
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._written = rows.all()
        self._under_way: dict[Series, float] = {}
        self._new: dict[Series, float] = {}

    def add(self, what: Counted, *labels: str, amount: float = 1.0) -> None:
        """Add to a total."""
        with self._lock:
            _add(self._new, {(what, labels): amount})

    def observe(self, what: Counted, *labels: str, seconds: float) -> None:
        """Add a duration to those of a series."""
        bound = BOUNDS[bisect_left(BOUNDS, seconds)]
        with self._lock:
            _add(self._new, {(what, (*labels, str(bound))): 1, (what, (*labels, SUM)): seconds})

    def took(self, step: Step, seconds: float) -> None:
        """Add the duration of a job's step."""
        self.observe(Counted.STEP_SECONDS, step, seconds=seconds)

    @contextmanager
    def timed(self, step: Step) -> Iterator[None]:
        """Add the duration of the block, a step of a job, if it ends without an error."""
        begun = monotonic()
        yield
        self.took(step, monotonic() - begun)

    async def step(self, step: Step, work: Awaitable[T]) -> T:
        """Wait for a step of a job; add its duration if it ends without an error."""
        with self.timed(step):
            return await work

    def totals(self) -> dict[Series, float]:
        """Return all totals as they are now.  Asks no disk."""
        with self._lock:
            found = dict(self._written)
            _add(found, self._under_way)
            _add(found, self._new)
        return found

    def write(self) -> None:
        """Add what was counted to the ledger, and hear what others added.  Blocking.

        Raise LedgerError; then it is added the next time.
        """
        with self._writing:
            with self._lock:
                self._under_way, self._new = self._new, {}
            try:
                self._rows.add(self._under_way)
            except BaseException:
                with self._lock:
                    _add(self._new, self._under_way)
                    self._under_way = {}
                raise
            with self._lock:  # it counts from here on, even if the ledger cannot be read now
                _add(self._written, self._under_way)
                self._under_way = {}
            written = self._rows.all()
            with self._lock:
                self._written = written


def _add(totals: dict[Series, float], more: Mapping[Series, float]) -> None:
    for series, amount in more.items():
        totals[series] = totals.get(series, 0.0) + amount
