"""What jobs do just now: the step of each running job and its bytes, and which jobs changed.

Kept in memory for those who look on, such as the API and the status page; the ledger knows how jobs
stand, and this does not repeat it.  Nobody is called back and nothing is queued for a reader: a
reader asks what changed since it last asked, so that a slow one costs nothing.  A cancelled job
learns here that it is to stop, since its work reports each byte here.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from syncd.errors import StoppedError
from syncd.oci import Reference
from syncd.progress import Advance, Progress
from syncd.sync.job import SyncJob

CHANGES_MAX = 2000
"""Changed jobs that are remembered; a reader that is further behind begins anew."""

_TOGETHER = {"cached": "layer", "parts": "layer"}  # steps that go on side by side count as one


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far the step of a running job is.

    `done` and `total` are bytes, of all parts of the step that have begun; `total` is None where
    nobody knows it.  `subject` is what the newest part is about: a layer's digest, a file's name.
    """

    step: str
    subject: str
    done: int
    total: int | None


@dataclass(slots=True)
class _Part:
    """A part of a step, such as one of several layers."""

    total: int | None
    done: int = 0


@dataclass(slots=True)
class _Running:
    """A job that runs: its step, the step's parts by subject, and whether it is to stop."""

    job: SyncJob
    step: str = ""
    parts: dict[str, _Part] = field(default_factory=dict)
    cancelled: bool = False


class Activity:
    """Knows what runs.  Progress comes from several threads, all else from one event loop."""

    def __init__(self) -> None:
        self.revision = 0
        self._lock = threading.Lock()
        self._running: dict[Reference, _Running] = {}
        self._changes: OrderedDict[str, int] = OrderedDict()
        self._forgotten = 0  # the newest revision that `_changes` has let go
        self._changed = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return bool(self._running)

    def started(self, job: SyncJob) -> None:
        """Hear that a job runs.  How far a caller's own job is, nobody is told."""
        if job.login is None:
            with self._lock:
                self._running[job.reference] = _Running(job)
        self.changed(job)

    def ended(self, job: SyncJob) -> None:
        """Hear that a job has ended, or was let go."""
        with self._lock:
            running = self._running.get(job.reference)
            if running is not None and running.job.id == job.id:
                del self._running[job.reference]
        self.changed(job)

    def cancel(self, job: SyncJob) -> None:
        """Have the work of a running job end at its next byte."""
        with self._lock:
            running = self._running.get(job.reference)
            if running is not None and running.job.id == job.id:
                running.cancelled = True

    def changed(self, job: SyncJob) -> None:
        """Hear that the ledger says something new of a job; wake whoever waits for that."""
        self.revision += 1
        self._changes[job.id] = self.revision
        self._changes.move_to_end(job.id)
        while len(self._changes) > CHANGES_MAX:
            self._forgotten = self._changes.popitem(last=False)[1]
        self._changed.set()
        self._changed = asyncio.Event()

    def since(self, revision: int) -> list[str] | None:
        """Return the ids of the jobs that changed after a revision, in this order.

        None says that too many changed to tell: ask for everything.
        """
        if revision < self._forgotten:
            return None
        newer: list[str] = []
        for job, changed in reversed(self._changes.items()):
            if changed <= revision:
                break
            newer.append(job)
        return newer[::-1]

    async def wait(self, revision: int) -> None:
        """Wait until something changed after a revision."""
        while self.revision <= revision:
            await self._changed.wait()

    def progress(self) -> dict[str, JobProgress]:
        """Return how far the running jobs are, by their ids; those without a step are left out."""
        with self._lock:
            return {
                running.job.id: _progress(running)
                for running in self._running.values()
                if running.parts
            }

    def watch(self, reference: Reference, progress: Progress) -> Progress:
        """Return a progress that is noted here for the reference's job, and passed on."""
        return _Noted(progress, lambda: self._running.get(reference), self._lock)


@dataclass(frozen=True, slots=True)
class _Noted:
    """A progress that is noted for the job that runs when a step begins."""

    progress: Progress
    running: Callable[[], _Running | None]
    lock: threading.Lock

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Hear that a step begins; its advance raises StoppedError once the job is cancelled."""
        tell = self.progress.begin(step, subject, total)
        part = _Part(total)
        with self.lock:
            running = self.running()
            if running is not None:
                _begin(running, _TOGETHER.get(step, step), subject, part)

        def advance(amount: int) -> None:
            if running is not None and running.cancelled:
                raise StoppedError("the job was cancelled")
            with self.lock:
                part.done += amount
            tell(amount)

        return advance


def _begin(running: _Running, step: str, subject: str, part: _Part) -> None:
    """Note a part; one that begins anew counts anew."""
    if running.step != step:
        running.step, running.parts = step, {}
    running.parts.pop(subject, None)
    running.parts[subject] = part


def _progress(running: _Running) -> JobProgress:
    parts = running.parts.values()
    totals = [part.total for part in parts if part.total is not None]
    return JobProgress(
        running.step,
        next(reversed(running.parts)),
        sum(part.done for part in parts),
        sum(totals) if len(totals) == len(parts) else None,
    )
