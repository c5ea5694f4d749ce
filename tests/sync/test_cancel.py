"""What `Worker.cancel` promises: the job ends now and says so, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import StoppedError
from syncd.progress import Advance, Silence
from syncd.sync.activity import Activity
from syncd.sync.executors import Executors
from syncd.sync.job import Cause, Outcome, Result, State, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.worker import Worker
from tests.sync.test_worker import FINE, REPOSITORY, A, B, C, Handler, within, working
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "ledger.sqlite"


async def test_running(path: Path) -> None:
    """A running job ends as cancelled, and the job of the same tag that waits runs then."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, ledger):
        (job,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        (follow_up,) = await worker.submit([A], Cause.API)
        assert await asyncio.wait_for(worker.cancel(job.id), 5)
        record = ledger.job(job.id)
        assert record is not None
        assert record.outcome is not None
        assert (record.state, record.outcome.result) == (State.DONE, Result.CANCELLED)
        assert (await within(worker.finished(job))).result is Result.CANCELLED
        doing.gate.set()
        assert await within(worker.finished(follow_up)) == FINE
    assert doing.ended == [(job.id, Result.CANCELLED), (follow_up.id, Result.UNCHANGED)]


async def test_threads_of_a_running_one(path: Path) -> None:
    """What a thread still does for a cancelled job ends at its next byte."""
    activity, begun = Activity(), asyncio.Event()
    advances: list[Advance] = []

    class Reading(Handler):
        async def sync(self, job: SyncJob) -> Outcome:
            progress = activity.watch(job.reference, Silence())
            advances.append(progress.begin("layer", "one", 100))
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError("it goes on")

    doing = Reading()
    with Ledger(path) as ledger:
        executors = Executors(conversions=1)
        worker = Worker(ledger, executors, doing, 1, doing.on_done, activity=activity)
        (job,) = await worker.submit([A], Cause.API)
        await asyncio.wait_for(begun.wait(), 5)
        advances[0](1)
        assert activity.progress()[job.id].done == 1
        assert await asyncio.wait_for(worker.cancel(job.id), 5)
        with pytest.raises(StoppedError, match="cancelled"):
            advances[0](1)
        assert not activity.busy
        await worker.stop()
        executors.close()


async def test_waiting_for_its_turn(path: Path) -> None:
    """A job that waits never runs, its place goes to the next, and its tag can be asked for."""
    doing = Handler(held={A})
    async with working(path, doing, parallel=1) as (worker, ledger):
        first, second, third = await worker.submit([A, B, C], Cause.API)
        await until(lambda: doing.running == [A])
        assert await asyncio.wait_for(worker.cancel(second.id), 5)
        assert not worker.has(B)
        (again,) = await worker.submit([B], Cause.API)
        doing.gate.set()
        for job in (first, third, again):
            assert await within(worker.finished(job)) == FINE
        assert doing.begun == [A, C, B]
        record = ledger.job(second.id)
        assert record is not None
        assert record.outcome is not None
        assert record.outcome.result is Result.CANCELLED


async def test_behind_a_running_one(path: Path) -> None:
    """A job that waits behind a running one of its tag is cancelled without disturbing that one."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        (follow_up,) = await worker.submit([A], Cause.API)
        with capture_logs() as logs:
            assert await asyncio.wait_for(worker.cancel(follow_up.id), 5)
            doing.gate.set()
            assert await within(worker.finished(job)) == FINE
            await until(lambda: worker.busy == 0)
        assert [line["event"] for line in logs] == ["cancelled", "unchanged"]
    assert doing.begun == [A]


async def test_settling(path: Path) -> None:
    """A job that waits for further events is cancelled at once."""
    doing = Handler()
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([A], Cause.WEBHOOK, settle=600)
        assert await asyncio.wait_for(worker.cancel(job.id), 5)
        assert worker.busy == 0
    assert doing.begun == []


async def test_repository(path: Path) -> None:
    """A repository's job takes the jobs that it made of tags along, and no others."""
    doing = Handler(tags=(A, B, C), held={A, B, C})
    async with working(path, doing, parallel=2) as (worker, ledger):
        (mine,) = await worker.submit([C], Cause.API)
        await until(lambda: doing.running == [C])
        (job,) = await worker.submit([REPOSITORY], Cause.API)
        await until(lambda: len(doing.running) == 2 and len(ledger.unfinished()) == 5)
        assert await asyncio.wait_for(worker.cancel(job.id), 5)
        assert doing.running == [C]
        doing.gate.set()
        assert await within(worker.finished(mine)) == FINE
        await until(lambda: worker.busy == 0)
        ends = {one: record.outcome for one, record in ((r.job.id, r) for r in ledger.jobs(9))}
        results = sorted(end.result.value for end in ends.values() if end)
        assert results == ["cancelled"] * 4 + ["unchanged"]


async def test_repository_that_joined_a_job(path: Path) -> None:
    """A repository's job leaves alone what waited for a tag before it came."""
    doing = Handler(tags=(A, B), held={A, C})
    async with working(path, doing, parallel=1) as (worker, _):
        await worker.submit([C], Cause.API)
        await until(lambda: doing.running == [C])
        (mine,) = await worker.submit([B], Cause.API)
        (job,) = await worker.submit([REPOSITORY], Cause.API)
        await until(lambda: worker.has(A))
        assert await asyncio.wait_for(worker.cancel(job.id), 5)
        await until(lambda: not worker.has(A))
        doing.gate.set()
        assert await within(worker.finished(mine)) == FINE
    assert doing.begun == [C, B]


async def test_cancelled_before_its_queue_began(path: Path) -> None:
    """A job that is cancelled in the moment in which it is made leaves no queue behind."""
    doing = Handler(tags=(A,))
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([REPOSITORY], Cause.API)
        while not worker.has(A):  # noqa: ASYNC110 - the first moment
            await asyncio.sleep(0)
        assert await worker.cancel(job.id)
        assert not worker.has(A)
        (again,) = await worker.submit([A], Cause.API)
        assert await within(worker.finished(again)) == FINE
    assert doing.begun == [A]


async def test_cancelled_tag_of_a_repository(path: Path) -> None:
    """A repository's job says that one of its tags was cancelled."""
    doing = Handler(tags=(A, B), held={A})
    async with working(path, doing) as (worker, ledger):
        (job,) = await worker.submit([REPOSITORY], Cause.API)
        await until(lambda: doing.running == [A] and B in doing.begun)
        (part,) = [r.job for r in ledger.jobs(9) if r.job.reference == A]
        assert await asyncio.wait_for(worker.cancel(part.id), 5)
        end = await within(worker.finished(job))
        assert end.result is Result.CANCELLED
        assert end.message == "watched tags: 1 unchanged, 1 cancelled"


async def test_none_of_its_jobs(path: Path) -> None:
    """A job that is over, or another process's, is not cancelled."""
    async with working(path, Handler()) as (worker, ledger):
        (job,) = await worker.submit([A], Cause.API)
        await within(worker.finished(job))
        assert not await worker.cancel(job.id)
        other = SyncJob(B, Cause.CLI)
        ledger.accept([other])
        assert not await worker.cancel(other.id)
        record = ledger.job(other.id)
        assert record is not None
        assert record.state is State.QUEUED


async def test_stop_meanwhile(path: Path) -> None:
    """A stop while a job is being cancelled leaves the ledger whole: over, or to be resumed."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        cancelling = asyncio.create_task(worker.cancel(job.id))
        await asyncio.sleep(0)
        await worker.stop()
        cancelling.cancel()
        await asyncio.gather(cancelling, return_exceptions=True)
    with Ledger(path) as ledger:
        record = ledger.job(job.id)
        assert record is not None
        assert record.state in (State.QUEUED, State.DONE)
