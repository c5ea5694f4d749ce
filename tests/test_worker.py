"""What `syncd.worker` promises: one job per reference at a time, none lost, none too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import LedgerError, RegistryError
from syncd.job import Cause, Outcome, Result, State, StoppedError, SyncJob
from syncd.ledger import Ledger
from syncd.reference import Reference
from syncd.worker import Worker

REPOSITORY = Reference.parse("a.b/c")
A, B, C, D = (REPOSITORY.with_tag(tag) for tag in "abcd")
FINE = Outcome(Result.UNCHANGED, "fine", ("v",))


@dataclass
class Doing:
    """Does jobs by counting them; those held wait at the gate."""

    tags: tuple[Reference, ...] = (A, B)
    outcomes: dict[Reference, Outcome | Exception] = field(default_factory=dict)
    held: set[Reference] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    running: list[Reference] = field(default_factory=list)
    begun: list[Reference] = field(default_factory=list)
    most: int = 0
    ended: list[tuple[str, Result]] = field(default_factory=list)

    async def bring(self, job: SyncJob) -> Outcome:
        """Do one job."""
        assert job.reference not in self.running
        self.running.append(job.reference)
        self.begun.append(job.reference)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(0)
            if job.reference in self.held:
                await self.gate.wait()
            outcome = self.outcomes.get(job.reference, FINE)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        finally:
            self.running.remove(job.reference)

    async def watched(self, repository: Reference) -> list[Reference]:
        """Return the tags."""
        return list(self.tags)

    async def on_done(self, job: SyncJob, outcome: Outcome) -> None:
        """Hear of a job's end."""
        self.ended.append((job.id, outcome.result))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "ledger.sqlite"


@asynccontextmanager
async def working(
    path: Path, doing: Doing, parallel: int = 2
) -> AsyncIterator[tuple[Worker, Ledger]]:
    """Give a worker on a ledger, and stop it afterwards."""
    with Ledger(path) as ledger:
        worker = Worker(ledger, doing, parallel, doing.on_done)
        try:
            yield worker, ledger
        finally:
            await worker.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def within(waiting: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Wait for an outcome, but not for ever."""
    return await asyncio.wait_for(waiting, 5)


async def test_written_before_it_is_answered(path: Path) -> None:
    """A job and its delivery are in the ledger when submit returns."""
    async with working(path, Doing()) as (worker, ledger):
        (job,) = worker.submit([A], Cause.WEBHOOK, delivery="1")
        record = ledger.job(job.id)
        assert record is not None
        assert record.state is State.QUEUED
        assert ledger.seen("1") == [job.id]
        assert await within(worker.finished(job)) == FINE
        record = ledger.job(job.id)
        assert record is not None
        assert (record.state, record.outcome) == (State.DONE, FINE)


async def test_finished_long_ago(path: Path) -> None:
    """The outcome of a job that ended before is read from the ledger."""
    async with working(path, Doing()) as (worker, _):
        (job,) = worker.submit([A], Cause.API)
        await within(worker.finished(job))
        assert await within(worker.finished(job)) == FINE
        with pytest.raises(LedgerError, match="does not know"):
            await worker.finished(SyncJob(A, Cause.API))


async def test_burst(path: Path) -> None:
    """Any number of triggers for a waiting reference are one job, and each gets its id."""
    doing = Doing()
    async with working(path, doing) as (worker, ledger):
        jobs = [worker.submit([A, A], Cause.WEBHOOK, delivery=str(n))[0] for n in range(50)]
        assert len(set(jobs)) == 1
        assert ledger.seen("49") == [jobs[0].id]
        await within(worker.finished(jobs[0]))
        await until(lambda: worker.busy == 0)
    assert doing.begun == [A]


async def test_settle_joins_events(path: Path) -> None:
    """A job waits for its settling time, and what comes within it is the same job."""
    doing = Doing()
    async with working(path, doing) as (worker, _):
        (first,) = worker.submit([A], Cause.WEBHOOK, settle=0.05)
        await asyncio.sleep(0.01)
        assert doing.begun == []
        assert worker.submit([A], Cause.WEBHOOK, settle=0.05) == [first]
        await within(worker.finished(first))
        await until(lambda: worker.busy == 0)
    assert doing.begun == [A]


async def test_one_follow_up(path: Path) -> None:
    """Triggers during a run make exactly one more run, after it."""
    doing = Doing(held={A})
    async with working(path, doing, parallel=4) as (worker, _):
        (first,) = worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        follow_ups = [worker.submit([A], Cause.API)[0] for _ in range(20)]
        assert len(set(follow_ups)) == 1
        assert follow_ups[0] != first
        doing.gate.set()
        await within(worker.finished(follow_ups[0]))
        await until(lambda: worker.busy == 0)
    assert doing.begun == [A, A]
    assert doing.ended == [(one.id, FINE.result) for one in (first, follow_ups[0])]


async def test_parallel_and_bounded(path: Path) -> None:
    """Different references run side by side, no more than configured."""
    doing = Doing(held={A, B, C, D})
    async with working(path, doing, parallel=3) as (worker, _):
        jobs = worker.submit([A, B, C, D], Cause.API)
        await until(lambda: len(doing.running) == 3)
        assert worker.busy == 4
        doing.gate.set()
        await asyncio.gather(*(within(worker.finished(job)) for job in jobs))
    assert doing.most == 3
    assert sorted(doing.begun) == [A, B, C, D]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RegistryError("it is down", "start it"), "it is down; start it"),
        (ValueError("oops"), r"a fault in syncd itself: ValueError('oops'); report it"),
    ],
)
async def test_fault(path: Path, fault: Exception, message: str) -> None:
    """A fault fails its own job, in a sentence, and neither others nor the next of its kind."""
    doing = Doing(outcomes={A: fault})
    async with working(path, doing, parallel=1) as (worker, ledger):
        a, b = worker.submit([A, B], Cause.API)
        assert await within(worker.finished(a)) == Outcome(Result.FAILED, message)
        assert await within(worker.finished(b)) == FINE
        del doing.outcomes[A]
        (again,) = worker.submit([A], Cause.API)
        assert await within(worker.finished(again)) == FINE
        assert ledger.unfinished() == []


async def test_spread(path: Path) -> None:
    """A repository is each of its watched tags, in their own lanes; it ends when they have."""
    doing = Doing(tags=(A, B, C), outcomes={B: Outcome(Result.PUBLISHED, "new", ("w",))})
    async with working(path, doing, parallel=1) as (worker, ledger):
        (job,) = worker.submit([REPOSITORY], Cause.WEBHOOK)
        outcome = await within(worker.finished(job))
        assert outcome.result is Result.PUBLISHED
        assert outcome.message == "watched tags: 1 published, 2 unchanged"
        assert sorted(outcome.volumes) == ["v", "v", "w"]
        assert {record.job.reference for record in ledger.jobs(10)} == {REPOSITORY, A, B, C}


@pytest.mark.parametrize(
    ("tags", "result", "message"),
    [
        ((), Result.UNCHANGED, "watched tags: none found"),
        ((A, B), Result.FAILED, "watched tags: 1 unchanged, 1 failed; b is bad"),
    ],
)
async def test_spread_result(
    path: Path, tags: tuple[Reference, ...], result: Result, message: str
) -> None:
    """The end of a repository's job is the worst of its tags', with their faults."""
    doing = Doing(tags=tags, outcomes={B: RegistryError("b is bad")})
    async with working(path, doing) as (worker, _):
        (job,) = worker.submit([REPOSITORY], Cause.WEBHOOK)
        outcome = await within(worker.finished(job))
        assert (outcome.result, outcome.message) == (result, message)


async def test_stop_leaves_jobs_for_the_next_start(path: Path) -> None:
    """What runs or waits at a stop is unfinished in the ledger, and a new worker takes it up."""
    doing = Doing(held={A})
    async with working(path, doing, parallel=1) as (worker, _):
        jobs = worker.submit([A, B], Cause.API)
        await until(lambda: doing.running == [A])
        worker.submit([A], Cause.API)
    assert doing.running == []
    assert doing.ended == []
    doing.gate.set()
    doing.begun.clear()
    async with working(path, doing) as (worker, ledger):
        assert len(ledger.unfinished()) == 3
        worker.resume()
        assert [await within(worker.finished(job)) for job in jobs] == [FINE, FINE]
        await until(lambda: worker.busy == 0)
        assert ledger.unfinished() == []
    assert sorted(doing.begun) == [A, B]


async def test_resume_after_a_crash(path: Path) -> None:
    """Jobs that a killed process left, queued or running, are done once per reference."""
    with Ledger(path) as ledger:
        left = [SyncJob(reference, Cause.WEBHOOK) for reference in (A, A, B, REPOSITORY)]
        ledger.accept(left)
        ledger.start(left[0].id)
    doing = Doing(tags=(A, C))
    async with working(path, doing) as (worker, ledger):
        worker.resume()
        await until(lambda: worker.busy == 0)
        assert ledger.unfinished() == []
        merged = ledger.job(left[1].id)
        assert merged is not None
        assert merged.outcome == Outcome(Result.UNCHANGED, f"merged into job {left[0].id}")
    assert sorted(set(doing.begun)) == [A, B, C]
    assert doing.begun.count(B) == doing.begun.count(C) == 1


async def test_interrupted_work_is_no_failure(path: Path) -> None:
    """Work that ended because syncd stops stays unfinished."""
    doing = Doing(outcomes={A: StoppedError("stopping")})
    async with working(path, doing) as (worker, ledger):
        (job,) = worker.submit([A], Cause.API)
        await until(lambda: worker.busy == 0)
        assert ledger.unfinished() == [job]
        assert doing.ended == []


async def test_who_waits_is_told_when_the_ledger_fails(path: Path) -> None:
    """A ledger that cannot be written is told to whoever waits for a job, instead of silence."""
    doing = Doing(held={A})
    async with working(path, doing) as (worker, ledger):
        (job,) = worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        (follow_up,) = worker.submit([A], Cause.API)
        ledger._db.execute("DROP TABLE jobs")
        doing.gate.set()
        for one in (job, follow_up):
            with pytest.raises(LedgerError, match="cannot be used"):
                await within(worker.finished(one))
        assert worker.busy == 0


async def test_who_waits_is_told_of_a_fault_in_syncd(path: Path) -> None:
    """A fault between two jobs of a lane is told to whoever waits for the second."""
    doing = Doing(held={A})

    async def faulty(job: SyncJob, outcome: Outcome) -> None:
        raise ValueError("oops")

    doing.on_done = faulty  # type: ignore[method-assign] # what no notice should do
    async with working(path, doing) as (worker, ledger):
        (first,) = worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        (follow_up,) = worker.submit([A], Cause.API)
        waiting = asyncio.create_task(within(worker.finished(follow_up)))
        await asyncio.sleep(0)
        doing.gate.set()
        assert await within(worker.finished(first)) == FINE
        with pytest.raises(ValueError, match="oops"):
            await waiting
        assert ledger.unfinished() == [follow_up]


async def test_a_waiter_that_leaves_does_not_end_the_job(path: Path) -> None:
    """Whoever waits for a job may give up; the job goes on."""
    doing = Doing(held={A})
    async with working(path, doing) as (worker, _):
        (job,) = worker.submit([A], Cause.API)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.finished(job), 0.01)
        doing.gate.set()
        assert await within(worker.finished(job)) == FINE
