"""The intake: what is submitted becomes jobs, which are in the ledger before anybody is answered.

Everything that is submitted while the disk is busy is written down in one piece afterwards, so a
slow disk delays a burst of deliveries by two flushes, not by one flush each.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from syncd.oci import Reference
from syncd.sync.executors import Executors
from syncd.sync.job import Cause, SyncJob
from syncd.sync.ledger import Ledger


@dataclass(frozen=True, slots=True)
class _Request:
    """What somebody submits, and the jobs that will do it, once they are written down."""

    references: tuple[Reference, ...]
    cause: Cause
    delivery: str | None
    settle: float
    since: float
    made: Callable[[list[SyncJob]], object]
    jobs: asyncio.Future[list[SyncJob]]


class Intake:
    """Makes jobs.  Lives in one event loop.

    `existing` gives the job that will do for a reference, or None; `enqueue` takes a new job, and
    the seconds in which further events still join it.  Whoever holds `lock` is alone in making
    jobs, so no reference gets two.
    """

    def __init__(
        self,
        ledger: Ledger,
        executors: Executors,
        existing: Callable[[Reference, float], SyncJob | None],
        enqueue: Callable[[SyncJob, float], None],
    ) -> None:
        self.lock = asyncio.Lock()
        self._ledger = ledger
        self._executors = executors
        self._existing = existing
        self._enqueue = enqueue
        self._requests: list[_Request] = []
        self._writer: asyncio.Task[None] | None = None

    async def take(
        self,
        references: Iterable[Reference],
        cause: Cause,
        *,
        delivery: str | None = None,
        settle: float = 0.0,
        since: float = math.inf,
        made: Callable[[list[SyncJob]], object] = lambda _: None,
    ) -> list[SyncJob]:
        """Return a job for each reference, once all are written down; raise LedgerError.

        A job that began to run after `since`, a time of the loop, will do as well as one that
        waits.  `made` hears of the jobs while the lock is still held.  A caller who goes away
        changes nothing.
        """
        loop = asyncio.get_running_loop()
        wanted = tuple(dict.fromkeys(references))
        request = _Request(wanted, cause, delivery, settle, since, made, loop.create_future())
        self._requests.append(request)
        if self._writer is None:
            self._writer = loop.create_task(self._write_all())
        return await asyncio.shield(request.jobs)

    async def _write_all(self) -> None:
        """Write down what is submitted until nothing is left."""
        try:
            while self._requests:
                async with self.lock:
                    together, self._requests = self._requests, []
                    await self._write(together)
        finally:
            self._writer = None

    async def _write(self, together: list[_Request]) -> None:
        new: dict[Reference, tuple[SyncJob, float]] = {}
        answers = [(request, self._jobs(request, new)) for request in together]
        deliveries = {
            request.delivery: [job.id for job in jobs]
            for request, jobs in answers
            if request.delivery is not None
        }
        try:
            if new or deliveries:
                made = [job for job, _ in new.values()]
                await self._executors.ledger(self._ledger.accept, made, deliveries)
        except Exception as exc:  # noqa: BLE001 - each caller raises it
            for request in together:
                request.jobs.set_exception(exc)
                request.jobs.exception()  # nobody need wait for it
            return
        for job, settle in new.values():
            self._enqueue(job, settle)
        for request, jobs in answers:
            request.made(jobs)
            request.jobs.set_result(jobs)

    def _jobs(
        self, request: _Request, new: dict[Reference, tuple[SyncJob, float]]
    ) -> list[SyncJob]:
        """Return the jobs that do what is submitted; those that are made for it go into `new`."""
        jobs: list[SyncJob] = []
        for reference in request.references:
            job = self._existing(reference, request.since)
            if job is None:
                fresh = (SyncJob(reference, request.cause), request.settle)
                job, _ = new.setdefault(reference, fresh)
            jobs.append(job)
        return jobs
