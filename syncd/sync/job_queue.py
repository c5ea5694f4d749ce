"""What a worker holds of jobs: the queue of a reference, a job's end, and who does the work."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from syncd.oci import Reference
from syncd.sync.job import Outcome, SyncJob
from syncd.sync.slots import Turn
from syncd.sync.tag_list import Listing


class JobHandler(Protocol):
    """What a worker does with a job."""

    async def sync(self, job: SyncJob) -> Outcome:
        """Bring one tag or digest up to date."""

    async def give_up(self, job: SyncJob, outcome: Outcome) -> None:
        """Hear that a job fails which never came to an end."""

    async def watched_tags(self, repository: Reference) -> Listing:
        """Return the watched tags of a repository as they are now; raise RegistryError."""


@dataclass(slots=True)
class JobQueue:
    """One reference: the job that waits, the job that runs, and the task that works jobs off.

    Times are the loop's.  `has_begun` tells whether the task has begun: a task that is cancelled
    before it begins takes no step, not even the step that removes this queue.
    """

    waiting: SyncJob | None = None
    not_before: float = 0.0
    running: SyncJob | None = None
    began: float = 0.0
    turn: Turn = field(default_factory=Turn)
    task: asyncio.Task[None] | None = None
    has_begun: bool = False

    def take_out(self) -> asyncio.Task[None] | None:
        """Let no job wait any more; return the task where that ends it."""
        self.waiting = None
        if self.running is not None or self.task is None:
            return None
        if self.has_begun:
            self.task.cancel()
        return self.task


@dataclass(slots=True)
class JobEnd:
    """A job's end, for who waits for it, and the loop's time when the job was queued.

    `work` is the task that does the job; `parts` are the jobs that a repository's job made of its
    tags.  `cancelled` says that somebody asked for the end.
    """

    queued: float
    outcome: asyncio.Future[Outcome]
    work: asyncio.Task[Outcome] | None = None
    parts: tuple[SyncJob, ...] = ()
    cancelled: bool = False

    def take_parts(self, others: Collection[str], jobs: Iterable[SyncJob]) -> None:
        """Take as parts those of the jobs that were made for this one: none of these ids."""
        self.parts = tuple(job for job in jobs if job.id not in others)

    def stop(self) -> None:
        """Have the work end where it waits."""
        if self.work is not None:
            self.work.cancel()
