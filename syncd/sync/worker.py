"""Jobs in their queues: one job per reference at a time, several references side by side.

A caller's own job has a queue of its own, and nobody joins it (`syncd.sync.caller_jobs`).  A
trigger for a reference that is already waiting is answered with the waiting job; a trigger that
comes while the reference's job runs makes one follow-up, however many more come.  So a burst of
events is one job, and nothing that was pushed after a job began goes unseen.  Every job is in the
ledger before `submit` returns, and is taken up again after a crash.  The jobs of one registry are
bounded, so that a registry that says nothing keeps only its own images waiting.  Of those that
wait, pushes come before what the clock brings, and the images of a registry take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import structlog

from syncd.errors import (
    HostFaultError,
    LedgerError,
    LedgerUnavailableError,
    StoppedError,
    SyncdError,
)
from syncd.oci import Reference
from syncd.sync.activity import Activity
from syncd.sync.caller_jobs import admit, as_told, bound
from syncd.sync.context import CALLERS
from syncd.sync.executors import LEDGER_PAUSES, Executors
from syncd.sync.intake import Intake
from syncd.sync.job import BACKLOG, CANCELLED, Cause, Outcome, Result, SyncJob, outcome_of_tags
from syncd.sync.job_queue import JobEnd, JobHandler, JobQueue
from syncd.sync.ledger import Ledger
from syncd.sync.resumption import unfinished
from syncd.sync.slots import KeyedSlots, Turn
from syncd.sync.tally import Step

log = structlog.stdlib.get_logger()


class Worker:
    """Runs jobs, at most `parallel` of each registry at a time.  Lives in one event loop."""

    def __init__(
        self,
        ledger: Ledger,
        executors: Executors,
        handler: JobHandler,
        parallel: int,
        on_done: Callable[[SyncJob, Outcome], Awaitable[None]],
        *,
        pauses: Sequence[float] = LEDGER_PAUSES,
        activity: Activity | None = None,
    ) -> None:
        """`pauses` are the seconds between attempts to write, of which the last is repeated.

        `activity` hears which jobs change, and what runs.
        """
        self._ledger = ledger
        self._executors = executors
        self._handler = handler
        self._places = KeyedSlots(parallel)
        self._on_done = on_done
        self._queues: dict[Reference | str, JobQueue] = {}  # by the id of a caller's own job
        self._ends: dict[str, JobEnd] = {}
        self._intake = Intake(ledger, executors, self._existing, self._enqueue)
        self._left: set[str] = set()  # jobs that were let go before their end
        self._pauses = pauses
        self._activity = activity or Activity()
        self._stopping = False

    async def resume(self) -> None:
        """Take up what an earlier run of the daemon left unfinished, or this one had to let go.

        A job that was running at three deaths of the daemon fails instead, a caller's own ends.
        Jobs that this worker has are left alone, so call it at any time.  Raise LedgerError.
        """
        ledger = self._executors.ledger
        async with self._intake.lock:
            mine = set(self._ends)
            if self._left:
                await ledger(self._ledger.leave, tuple(self._left))
                self._left.clear()
            for job in await unfinished(
                self._ledger, self._executors, mine, self._handler, self._end
            ):
                waiting = self._waiting(job.reference)
                if waiting is None:
                    self._enqueue(job, 0.0)
                else:
                    merged = Outcome(Result.UNCHANGED, f"merged into job {waiting.id}")
                    await ledger(self._ledger.finish, job.id, merged)

    async def submit(
        self,
        references: Iterable[Reference],
        cause: Cause,
        *,
        delivery: str | None = None,
        settle: float = 0.0,
    ) -> list[SyncJob]:
        """Ensure that each reference will be looked at from now on; return the jobs that will.

        A webhook gives its `delivery` id, to be remembered in the same transaction, and
        `settle`, the seconds in which further events still join the job.  Raise LedgerError.
        """
        jobs = await self._intake.take(references, cause, delivery=delivery, settle=settle)
        if cause not in BACKLOG:
            for job in jobs:
                self._hasten(job.reference)
        return jobs

    async def submit_alone(self, job: SyncJob) -> None:
        """Ensure that a caller's own job runs, which nobody joins.

        Raise CrowdedError where too many wait or run, else LedgerError.
        """
        async with self._intake.lock:
            admit(sum(isinstance(key, str) for key in self._queues))
            await self._executors.ledger(self._ledger.accept, [job])
            self._enqueue(job, 0.0)

    async def cancel(self, job: str) -> bool:
        """Ensure that a job has ended, and the jobs that it made of tags; return whether it did so.

        False says that the job is over, or another process's.  A thread that works for it ends at
        its next byte, perhaps after the job; what was published until then stays.
        """
        async with self._intake.lock:  # nobody puts a job into a queue that is being emptied
            end = self._ends.get(job)
            if end is None:
                return False
            ends = [end, *filter(None, (self._ends.get(part.id) for part in end.parts))]
            for each in ends:
                each.cancelled = True
            queues = [*self._queues.values()]
            for queue in queues:
                if (running := queue.running) and self._is_cancelled(running):
                    if running.login is not None:
                        running.login.cancelled.set()
                    self._activity.cancel(running)
                    self._ends[running.id].stop()
            emptied = [queue for queue in queues if self._is_cancelled(queue.waiting)]
            waiting = [queue.waiting for queue in emptied if queue.waiting]
            tasks = filter(None, [queue.take_out() for queue in emptied])
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(one, CANCELLED) for one in waiting))
        await asyncio.wait([each.outcome for each in ends])
        return True

    async def finished(self, job: SyncJob) -> Outcome:
        """Wait for the end of a job that `submit` returned."""
        end = self._ends.get(job.id)
        if end is not None:
            return await asyncio.shield(end.outcome)
        record = await self._executors.ledger(self._ledger.job, job.id)
        if record is None or record.outcome is None:
            raise LedgerError(f"the ledger does not know how job {job.id} ended")
        return record.outcome

    async def wait(self, job: str, within: float) -> None:
        """Wait for the end of a job of this worker, `within` seconds at most."""
        end = self._ends.get(job)
        if end is not None:
            await asyncio.wait([end.outcome], timeout=within)

    @property
    def busy(self) -> int:
        """How many references have a job that waits or runs."""
        return len(self._queues)

    @property
    def waiting(self) -> int:
        """How many jobs wait for their turn."""
        return sum(queue.waiting is not None for queue in self._queues.values())

    @property
    def running(self) -> int:
        """How many jobs run; the job of a repository runs while those of its tags do."""
        return sum(queue.running is not None for queue in self._queues.values())

    def has(self, reference: Reference) -> bool:
        """Tell whether a job of a reference waits or runs."""
        return reference in self._queues

    def resize(self, parallel: int) -> None:
        """Change how many jobs of each registry run at a time."""
        self._places.resize(parallel)

    async def stop(self) -> None:
        """Let no further job begin, and cut short those that run; they are resumed next time."""
        self._stopping = True
        running = [queue.running for queue in self._queues.values() if queue.running]
        tasks = [queue.task for queue in self._queues.values() if queue.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            left = {job.id for job in running} | self._left
            await self._executors.ledger(self._ledger.leave, tuple(left))
        except LedgerError as exc:
            log.warning("the stop was not written down", error=str(exc))

    def _is_cancelled(self, job: SyncJob | None) -> bool:
        end = self._ends.get(job.id) if job is not None else None
        return end is not None and end.cancelled

    def _hasten(self, reference: Reference) -> None:
        """Let a reference's job, which fresh work joined, wait as fresh work."""
        queue = self._queues.get(reference)
        if queue is not None and queue.turn.backlog:
            queue.turn.backlog = False
            self._places.hasten(reference.registry, queue.turn)

    def _existing(self, reference: Reference, since: float) -> SyncJob | None:
        """Return the job that will do for a reference: one that waits, or began after `since`."""
        queue = self._queues.get(reference)
        if queue is None:
            return None
        return queue.waiting or (queue.running if queue.began >= since else None)

    def _waiting(self, reference: Reference) -> SyncJob | None:
        queue = self._queues.get(reference)
        return queue.waiting if queue else None

    def _enqueue(self, job: SyncJob, settle: float) -> None:
        if self._stopping:
            return  # the ledger has the job, and the next start takes it up
        loop = asyncio.get_running_loop()
        key = job.reference if job.login is None else job.id
        queue = self._queues.setdefault(key, JobQueue())
        queue.waiting = job
        queue.turn = Turn(job.reference.name, backlog=job.cause in BACKLOG)
        queue.not_before = loop.time() + settle
        self._ends[job.id] = JobEnd(loop.time(), loop.create_future())
        self._activity.changed(job)
        if queue.task is None:
            queue.task = loop.create_task(self._work_off(key, job.reference, queue))

    async def _work_off(self, key: Reference | str, reference: Reference, queue: JobQueue) -> None:
        """Run the queue's jobs until none waits."""
        loop = asyncio.get_running_loop()
        queue.has_begun = True
        try:
            while queue.waiting is not None and not self._stopping:
                await asyncio.sleep(max(0.0, queue.not_before - loop.time()))
                async with self._place(key, reference, queue.turn):
                    queue.running, queue.waiting = queue.waiting, None
                    queue.began = loop.time()
                    queued = self._ends[queue.running.id].queued
                    self._ledger.tally.took(Step.QUEUE, queue.began - queued)
                    await self._run(queue.running)
                queue.running = None
        except Exception as exc:  # a ledger that fails, or a fault in syncd: other queues go on
            log.exception("queue stopped", reference=str(reference))
            for left in (queue.running, queue.waiting):
                if left is not None and (end := self._ends.pop(left.id, None)) is not None:
                    self._left.add(left.id)
                    end.outcome.set_exception(exc)
                    end.outcome.exception()  # nobody need wait for it
        finally:
            del self._queues[key]

    def _place(
        self, key: Reference | str, reference: Reference, turn: Turn
    ) -> AbstractAsyncContextManager[None]:
        """Wait until one more job of the registry may run; a repository's job takes no place."""
        if reference.tag or reference.digest:
            return self._places.taken(CALLERS if isinstance(key, str) else reference.registry, turn)
        return nullcontext()

    async def _run(self, job: SyncJob) -> None:
        """Run one job to its end, whatever happens in it."""
        with bound(job):
            await self._executors.ledger_at_last(self._pauses, self._ledger.start, job.id)
            self._activity.started(job)
            log.info("started", cause=job.cause)
            try:
                await self._end(job, await self._done(job))
            except StoppedError:
                log.info("interrupted")
                self._left.add(job.id)
            finally:
                self._activity.ended(job)

    async def _done(self, job: SyncJob) -> Outcome:
        """Do a job; return how that went.  Raise StoppedError where the daemon stops."""
        end = self._ends[job.id]
        if end.cancelled:
            return CANCELLED
        end.work = asyncio.get_running_loop().create_task(self._attempts(job))
        try:
            return await end.work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not end.cancelled or (task is not None and task.cancelling()):
                raise  # the daemon stops
            return CANCELLED
        except StoppedError:
            if not end.cancelled:
                raise
            return CANCELLED
        except SyncdError as exc:
            return Outcome(Result.FAILED, str(exc), temporary=exc.temporary)
        except Exception as exc:  # a fault in one job must not end the daemon
            if (refusal := HostFaultError.of(exc)) is not None:
                return Outcome(Result.FAILED, str(refusal), temporary=True)
            log.exception("fault in syncd")
            return Outcome(Result.FAILED, f"a fault in syncd itself: {exc!r}; report it")

    async def _attempts(self, job: SyncJob) -> Outcome:
        """Do a job; one that a passing fault of the ledger broke off is begun anew, some times."""
        single = job.reference.tag or job.reference.digest
        act = self._handler.sync if single else self._spread
        for pause in self._pauses:
            try:
                return await act(job)
            except LedgerUnavailableError as exc:
                log.warning("the job is begun anew", after=pause, error=str(exc))
            await asyncio.sleep(pause)
        return await act(job)

    async def _end(self, job: SyncJob, outcome: Outcome) -> None:
        """Write down how a job ended, and tell whoever waits for it, or listens."""
        told = as_told(job, outcome)
        await self._executors.ledger_at_last(self._pauses, self._ledger.finish, job.id, told)
        self._activity.ended(job)
        with bound(job):
            report = log.error if outcome.failed else log.info
            layers = outcome.layers._asdict() if any(outcome.layers) else {}
            report(outcome.result.value, message=outcome.message, volumes=outcome.volumes, **layers)
        end = self._ends.pop(job.id, None)
        if end is not None:
            end.outcome.set_result(outcome)
        await self._on_done(job, outcome)

    async def _spread(self, job: SyncJob) -> Outcome:
        """Look at every watched tag of a repository, each in its own queue.

        A tag that is looked at already since this job was queued is not looked at again.
        """
        end = self._ends[job.id]
        listing = await self._handler.watched_tags(job.reference)
        made = partial(end.take_parts, frozenset(self._ends))
        jobs = await self._intake.take(listing.tags, job.cause, since=end.queued, made=made)
        ends = await asyncio.gather(*(self.finished(part) for part in jobs))
        return outcome_of_tags(ends, listing.warnings)
