"""Jobs in their lanes: one job per reference at a time, several references side by side.

A trigger for a reference that is already waiting is answered with the waiting job; one that
comes while the reference's job runs makes one follow-up, however many more come.  So a burst of
events is one job, and nothing that was pushed after a job began goes unseen.  Every job is in
the ledger before `submit` returns, and is taken up again after a crash.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import structlog

from syncd.errors import LedgerError, SyncdError
from syncd.job import Cause, Outcome, Result, StoppedError, SyncJob
from syncd.ledger import Ledger
from syncd.reference import Reference

log = structlog.stdlib.get_logger()


class Doing(Protocol):
    """What a worker does with a job."""

    async def bring(self, job: SyncJob) -> Outcome:
        """Bring one tag or digest up to date."""

    async def watched(self, repository: Reference) -> list[Reference]:
        """Return the watched tags of a repository as they are now."""


@dataclass(slots=True)
class _Lane:
    """One reference: the job that waits, and the task that works jobs off one by one."""

    waiting: SyncJob | None = None
    not_before: float = 0.0
    task: asyncio.Task[None] | None = None


class Worker:
    """Runs jobs, `parallel` at a time.  Lives in one event loop."""

    def __init__(
        self,
        ledger: Ledger,
        doing: Doing,
        parallel: int,
        on_done: Callable[[SyncJob, Outcome], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._doing = doing
        self._slots = asyncio.Semaphore(parallel)
        self._on_done = on_done
        self._lanes: dict[Reference, _Lane] = {}
        self._ends: dict[str, asyncio.Future[Outcome]] = {}
        self._stopping = False

    def resume(self) -> None:
        """Take up what an earlier run of the daemon left unfinished."""
        for job in self._ledger.unfinished():
            waiting = self._lane(job.reference).waiting
            if waiting is None:
                self._queue(job, 0.0)
            else:
                merged = Outcome(Result.UNCHANGED, f"merged into job {waiting.id}")
                self._ledger.finish(job.id, merged)

    def submit(
        self,
        references: Iterable[Reference],
        cause: Cause,
        *,
        delivery: str | None = None,
        settle: float = 0.0,
    ) -> list[SyncJob]:
        """Ensure that each reference will be looked at from now on; return the jobs that will.

        A webhook gives its `delivery` id, to be remembered in the same transaction, and
        `settle`, the seconds in which further events still join the job.
        """
        jobs: list[SyncJob] = []
        new: list[SyncJob] = []
        for reference in dict.fromkeys(references):
            waiting = self._lane(reference).waiting
            if waiting is None:
                waiting = SyncJob(reference, cause)
                new.append(waiting)
            jobs.append(waiting)
        self._ledger.accept(new, delivery, [job.id for job in jobs])
        for job in new:
            self._queue(job, settle)
        return jobs

    async def finished(self, job: SyncJob) -> Outcome:
        """Wait for the end of a job that `submit` returned."""
        end = self._ends.get(job.id)
        if end is not None:
            return await asyncio.shield(end)
        record = self._ledger.job(job.id)
        if record is None or record.outcome is None:
            raise LedgerError(f"the ledger does not know how job {job.id} ended")
        return record.outcome

    @property
    def busy(self) -> int:
        """How many references have a job that waits or runs."""
        return len(self._lanes)

    async def stop(self) -> None:
        """Let no further job begin, and cut short those that run; they are resumed next time."""
        self._stopping = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lane(self, reference: Reference) -> _Lane:
        return self._lanes.get(reference) or _Lane()

    def _queue(self, job: SyncJob, settle: float) -> None:
        loop = asyncio.get_running_loop()
        lane = self._lanes.setdefault(job.reference, _Lane())
        lane.waiting = job
        lane.not_before = loop.time() + settle
        self._ends[job.id] = loop.create_future()
        if lane.task is None:
            lane.task = loop.create_task(self._work_off(job.reference, lane))

    async def _work_off(self, reference: Reference, lane: _Lane) -> None:
        """Run the lane's jobs until none waits."""
        loop = asyncio.get_running_loop()
        slot = self._slots if reference.tag or reference.digest else nullcontext()
        job: SyncJob | None = None
        try:
            while lane.waiting is not None and not self._stopping:
                await asyncio.sleep(max(0.0, lane.not_before - loop.time()))
                async with slot:
                    job, lane.waiting = lane.waiting, None
                    await self._run(job)
        except Exception as exc:  # a ledger that fails, or a fault in syncd: other lanes go on
            log.exception("lane stopped", reference=str(reference))
            for one in (job, lane.waiting):
                if one is not None and (end := self._ends.pop(one.id, None)) is not None:
                    end.set_exception(exc)
                    end.exception()  # nobody need wait for it
        finally:
            del self._lanes[reference]

    async def _run(self, job: SyncJob) -> None:
        """Run one job to its end, whatever happens in it."""
        with structlog.contextvars.bound_contextvars(job=job.id, reference=str(job.reference)):
            self._ledger.start(job.id)
            log.info("started", cause=job.cause)
            try:
                one = job.reference.tag or job.reference.digest
                outcome = await (self._doing.bring(job) if one else self._spread(job))
            except StoppedError:
                log.info("interrupted")
                return
            except SyncdError as exc:
                outcome = Outcome(Result.FAILED, str(exc))
            except Exception as exc:  # a fault in one job must not end the daemon
                log.exception("fault in syncd")
                outcome = Outcome(Result.FAILED, f"a fault in syncd itself: {exc!r}; report it")
            self._ledger.finish(job.id, outcome)
            say = log.error if outcome.result is Result.FAILED else log.info
            say(outcome.result.value, message=outcome.message, volumes=outcome.volumes)
            self._ends.pop(job.id).set_result(outcome)
            await self._on_done(job, outcome)

    async def _spread(self, job: SyncJob) -> Outcome:
        """Look at every watched tag of a repository, each in its own lane."""
        references = await self._doing.watched(job.reference)
        jobs = self.submit(references, job.cause)
        ends = await asyncio.gather(*(self.finished(one) for one in jobs))
        counts = Counter(end.result for end in ends)
        worst = next((r for r in (Result.FAILED, Result.PUBLISHED) if counts[r]), Result.UNCHANGED)
        summary = ", ".join(f"{counts[result]} {result}" for result in Result if counts[result])
        faults = [end.message for end in ends if end.result is Result.FAILED]
        return Outcome(
            worst,
            "; ".join([f"watched tags: {summary or 'none found'}", *faults]),
            tuple(volume for end in ends for volume in end.volumes),
        )
