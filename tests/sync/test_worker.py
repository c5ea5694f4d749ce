"""What `worker` promises: one job per reference at a time, none lost, none too many."""

from __future__ import annotations

import asyncio
import errno
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.errors import (
    LedgerError,
    LedgerUnavailableError,
    RegistryError,
    RegistryUnavailableError,
    StoppedError,
)
from syncd.oci.reference import Reference
from syncd.sync.executors import Executors
from syncd.sync.job import Cause, Outcome, Result, State, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.tag_list import Listing
from syncd.sync.worker import Worker
from tests.waiting import until

REPOSITORY = Reference.parse("a.b/c")
A, B, C, D = (REPOSITORY.with_tag(tag) for tag in "abcd")
FINE = Outcome(Result.UNCHANGED, "fine", ("v",))


@dataclass
class Handler:
    """Does jobs by counting them; those held wait at the gate."""

    tags: tuple[Reference, ...] = (A, B)
    outcomes: dict[Reference, Outcome | Exception] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    held: set[Reference] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    running: list[Reference] = field(default_factory=list)
    begun: list[Reference] = field(default_factory=list)
    most: int = 0
    ended: list[tuple[str, Result]] = field(default_factory=list)

    async def sync(self, job: SyncJob) -> Outcome:
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

    async def give_up(self, job: SyncJob, outcome: Outcome) -> None:
        """Fail: only a process that died leads here."""
        raise AssertionError(f"{job} was given up")

    async def watched_tags(self, repository: Reference) -> Listing:
        """Return the tags."""
        return Listing(list(self.tags), warnings=self.warnings)

    async def on_done(self, job: SyncJob, outcome: Outcome) -> None:
        """Hear of a job's end."""
        self.ended.append((job.id, outcome.result))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "ledger.sqlite"


@asynccontextmanager
async def working(
    path: Path, doing: Handler, parallel: int = 4
) -> AsyncIterator[tuple[Worker, Ledger]]:
    """Give a worker on a ledger, and stop it afterwards."""
    with Ledger(path) as ledger:
        executors = Executors(conversions=2)
        worker = Worker(ledger, executors, doing, parallel, doing.on_done, pauses=(0.01, 0.02))
        try:
            yield worker, ledger
        finally:
            await worker.stop()
            executors.close()


class Faulty:
    """A connection to a disk that is slow, or refuses what the next statements want of it."""

    def __init__(self, ledger: Ledger, *, seconds: float = 0) -> None:
        self._connection = ledger._db
        self.seconds = seconds
        self.refusals: list[int] = []
        ledger._db = self  # type: ignore[assignment]

    def execute(self, sql: str, *values: Any) -> Any:
        """Run a statement, or raise as SQLite does."""
        if sql == "COMMIT":
            time.sleep(self.seconds)
        if sql in ("BEGIN IMMEDIATE", "COMMIT") and self.refusals:
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = self.refusals.pop(0)
            raise error
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def within(waiting: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Wait for an outcome, but not for ever."""
    return await asyncio.wait_for(waiting, 5)


async def test_written_before_it_is_answered(path: Path) -> None:
    """A job and its delivery are in the ledger when submit returns."""
    async with working(path, Handler()) as (worker, ledger):
        (job,) = await worker.submit([A], Cause.WEBHOOK, delivery="1", settle=0.3)
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
    async with working(path, Handler()) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        await within(worker.finished(job))
        assert await within(worker.finished(job)) == FINE
        with pytest.raises(LedgerError, match="does not know"):
            await worker.finished(SyncJob(A, Cause.API))


async def test_burst(path: Path) -> None:
    """Any number of triggers for a waiting reference are one job, and each gets its id."""
    doing = Handler()
    async with working(path, doing) as (worker, ledger):
        jobs = await asyncio.gather(
            *(worker.submit([A, A], Cause.WEBHOOK, delivery=str(n), settle=1) for n in range(50))
        )
        ((job,), *others) = jobs
        assert all(other == [job] for other in others)
        assert ledger.seen("49") == [job.id]
        await within(worker.finished(job))
        await until(lambda: worker.busy == 0)
    assert doing.begun == [A]


async def test_settle_joins_events(path: Path) -> None:
    """A job waits for its settling time, and what comes within it is the same job."""
    doing = Handler()
    async with working(path, doing) as (worker, _):
        (first,) = await worker.submit([A], Cause.WEBHOOK, settle=0.05)
        await asyncio.sleep(0.01)
        assert doing.begun == []
        assert await worker.submit([A], Cause.WEBHOOK, settle=0.05) == [first]
        await within(worker.finished(first))
        await until(lambda: worker.busy == 0)
    assert doing.begun == [A]


async def test_one_follow_up(path: Path) -> None:
    """Triggers during a run make exactly one more run, after it."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, _):
        (first,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        follow_ups = [(await worker.submit([A], Cause.API))[0] for _ in range(20)]
        assert len(set(follow_ups)) == 1
        assert follow_ups[0] != first
        doing.gate.set()
        await within(worker.finished(follow_ups[0]))
        await until(lambda: worker.busy == 0)
    assert doing.begun == [A, A]
    assert doing.ended == [(one.id, FINE.result) for one in (first, follow_ups[0])]


async def test_parallel_and_bounded(path: Path) -> None:
    """The references of one registry run side by side, no more than configured; others' too."""
    elsewhere = Reference.parse("d.e/f:a")
    handler = Handler(held={A, B, C, D, elsewhere})
    async with working(path, handler, parallel=3) as (worker, ledger):
        jobs = await worker.submit([A, B, C, D, elsewhere], Cause.API)
        await until(lambda: len(handler.running) == 4)
        await asyncio.sleep(0.05)
        assert elsewhere in handler.running
        assert len(handler.running) == 4
        assert [record.state for record in ledger.jobs(9)].count(State.RUNNING) == 4
        worker.resize(4)
        await until(lambda: len(handler.running) == 5)
        handler.gate.set()
        await asyncio.gather(*(within(worker.finished(job)) for job in jobs))
    assert sorted(handler.begun) == [A, B, C, D, elsewhere]


async def test_stop_while_many_wait(path: Path) -> None:
    """A stop ends jobs that wait for their turn, too; none of them is called a failure."""
    tags = [REPOSITORY.with_tag(f"t{number}") for number in range(50)]
    handler = Handler(held=set(tags))
    async with working(path, handler, parallel=2) as (worker, ledger):
        await worker.submit(tags, Cause.API)
        await until(lambda: len(handler.running) == 2)
    with Ledger(path) as ledger:
        assert len(ledger.unfinished()) == 50
    assert handler.ended == []


@pytest.mark.parametrize(
    ("faults", "temporary"),
    [
        ({A: RegistryUnavailableError("away"), B: RegistryUnavailableError("away")}, True),
        ({A: RegistryUnavailableError("away"), B: RegistryError("refused")}, False),
        ({A: RegistryUnavailableError("away")}, True),
        ({}, False),
    ],
)
async def test_temporary(
    path: Path, faults: dict[Reference, Outcome | Exception], temporary: bool
) -> None:
    """A repository's failure is temporary only if each of its tags' failures is."""
    async with working(path, Handler(outcomes=faults)) as (worker, _):
        (job,) = await worker.submit([REPOSITORY], Cause.API)
        assert (await within(worker.finished(job))).temporary is temporary


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RegistryError("it is down", "start it"), "it is down; start it"),
        (ValueError("oops"), r"a fault in syncd itself: ValueError('oops'); report it"),
    ],
)
async def test_fault(path: Path, fault: Exception, message: str) -> None:
    """A fault fails its own job, in a sentence, and neither others nor the next of its kind."""
    doing = Handler(outcomes={A: fault})
    async with working(path, doing) as (worker, ledger):
        a, b = await worker.submit([A, B], Cause.API)
        assert await within(worker.finished(a)) == Outcome(Result.FAILED, message)
        assert await within(worker.finished(b)) == FINE
        del doing.outcomes[A]
        (again,) = await worker.submit([A], Cause.API)
        assert await within(worker.finished(again)) == FINE
        assert ledger.unfinished() == []


@pytest.mark.parametrize(("times", "begun"), [(2, 3), (9, 3)])
async def test_broken_off_by_the_ledger(path: Path, times: int, begun: int) -> None:
    """A job that a passing fault of the ledger broke off is begun anew, though not for ever."""
    fault = LedgerUnavailableError("its disk reports an error")
    ends: Iterator[Outcome | Exception] = iter([*[fault] * times, FINE])

    class Unlucky(Handler):
        async def sync(self, job: SyncJob) -> Outcome:
            self.outcomes[A] = next(ends)
            return await super().sync(job)

    doing = Unlucky()
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        end = await within(worker.finished(job))
    assert doing.begun == [A] * begun
    assert end == (FINE if times < begun else Outcome(Result.FAILED, str(fault), temporary=True))


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/made"), "Too many open files (/made)"),
        (MemoryError(), "out of memory"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
    ],
)
async def test_refused_by_the_host(path: Path, refusal: Exception, words: str) -> None:
    """What the host refuses is no fault in syncd, and may pass."""
    async with working(path, Handler(outcomes={A: refusal})) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        end = await within(worker.finished(job))
    assert end.message.startswith(f"this host refuses: {words}; ")
    assert (end.result, end.temporary) == (Result.FAILED, True)


async def test_spread(path: Path) -> None:
    """A repository is each of its watched tags, in their own lanes; it ends when they have."""
    doing = Handler(tags=(A, B, C), outcomes={B: Outcome(Result.PUBLISHED, "new", ("w",))})
    async with working(path, doing) as (worker, ledger):
        (job,) = await worker.submit([REPOSITORY], Cause.WEBHOOK)
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
    doing = Handler(tags=tags, outcomes={B: RegistryError("b is bad")})
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([REPOSITORY], Cause.WEBHOOK)
        outcome = await within(worker.finished(job))
        assert (outcome.result, outcome.message) == (result, message)


async def test_stop_leaves_jobs_for_the_next_start(path: Path) -> None:
    """What runs or waits at a stop is unfinished in the ledger, and a new worker takes it up."""
    doing = Handler(held={A, B})
    async with working(path, doing) as (worker, _):
        jobs = await worker.submit([A, B], Cause.API)
        await until(lambda: len(doing.running) == 2)
        await worker.submit([A], Cause.API)
    assert doing.running == []
    assert doing.ended == []
    doing.gate.set()
    doing.begun.clear()
    async with working(path, doing) as (worker, ledger):
        assert len(ledger.unfinished()) == 3
        await worker.resume()
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
    doing = Handler(tags=(A, C))
    async with working(path, doing) as (worker, ledger):
        await worker.resume()
        await until(lambda: worker.busy == 0)
        assert ledger.unfinished() == []
        merged = ledger.job(left[1].id)
        assert merged is not None
        assert merged.outcome == Outcome(Result.UNCHANGED, f"merged into job {left[0].id}")
    assert sorted(set(doing.begun)) == [A, B, C]
    assert doing.begun.count(B) == doing.begun.count(C) == 1


async def test_interrupted_work_is_no_failure(path: Path) -> None:
    """Work that ended because syncd stops stays unfinished."""
    doing = Handler(outcomes={A: StoppedError("stopping")})
    async with working(path, doing) as (worker, ledger):
        (job,) = await worker.submit([A], Cause.API)
        await until(lambda: worker.busy == 0)
        assert ledger.unfinished() == [job]
        assert doing.ended == []


async def test_who_waits_is_told_when_the_ledger_fails(path: Path) -> None:
    """A ledger that cannot be written is told to whoever waits for a job, instead of silence."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, ledger):
        (job,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        (follow_up,) = await worker.submit([A], Cause.API)
        ledger._db.execute("DROP TABLE jobs")
        doing.gate.set()
        for one in (job, follow_up):
            with pytest.raises(LedgerError, match="cannot be used"):
                await within(worker.finished(one))
        assert worker.busy == 0


async def test_who_waits_is_told_of_a_fault_in_syncd(path: Path) -> None:
    """A fault between two jobs of a lane is told to whoever waits for the second."""
    doing = Handler(held={A})

    async def faulty(job: SyncJob, outcome: Outcome) -> None:
        raise ValueError("oops")

    doing.on_done = faulty  # type: ignore[method-assign] # what no notice should do
    async with working(path, doing) as (worker, ledger):
        (first,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
        (follow_up,) = await worker.submit([A], Cause.API)
        waiting = asyncio.create_task(within(worker.finished(follow_up)))
        await asyncio.sleep(0)
        doing.gate.set()
        assert await within(worker.finished(first)) == FINE
        with pytest.raises(ValueError, match="oops"):
            await waiting
        assert ledger.unfinished() == [follow_up]


async def test_a_waiter_that_leaves_does_not_end_the_job(path: Path) -> None:
    """Whoever waits for a job may give up; the job goes on."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.finished(job), 0.01)
        doing.gate.set()
        assert await within(worker.finished(job)) == FINE


async def test_spread_joins_what_runs_since(path: Path) -> None:
    """A tag's job that began after the repository's was queued is not followed by another one."""
    handler = Handler(tags=(A,), held={A})
    with Ledger(path) as ledger:
        ledger.accept([SyncJob(REPOSITORY, Cause.WEBHOOK, "all"), SyncJob(A, Cause.WEBHOOK, "a")])
    async with working(path, handler) as (worker, ledger):
        await worker.resume()
        await until(lambda: handler.running == [A])
        await asyncio.sleep(0.05)
        handler.gate.set()
        await until(lambda: worker.busy == 0)
        assert {record.job.id for record in ledger.jobs(9)} == {"all", "a"}
    assert handler.begun == [A]


async def test_spread_follows_what_began_before(path: Path) -> None:
    """A tag's job that ran when the repository's was queued may have looked too early."""
    handler = Handler(tags=(A,), held={A})
    async with working(path, handler) as (worker, _):
        await worker.submit([A], Cause.API)
        await until(lambda: handler.running == [A])
        (job,) = await worker.submit([REPOSITORY], Cause.WEBHOOK)
        await asyncio.sleep(0.05)
        handler.gate.set()
        await within(worker.finished(job))
    assert handler.begun == [A, A]


@pytest.mark.parametrize(
    "refusals",
    [
        [sqlite3.SQLITE_BUSY] * 3,
        [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY_SNAPSHOT],
    ],
)
async def test_a_fault_that_passes(path: Path, refusals: list[int]) -> None:
    """A ledger that refuses for a while, as a job begins or ends, loses nothing of the job."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, ledger):
        faulty = Faulty(ledger)
        (job,) = await worker.submit([A], Cause.WEBHOOK, delivery="1", settle=0.05)
        faulty.refusals = [*refusals]
        await until(lambda: doing.running == [A])
        assert faulty.refusals == []
        faulty.refusals = [*refusals]
        doing.gate.set()
        assert await within(worker.finished(job)) == FINE
        assert ledger.unfinished() == []
    assert doing.begun == [A]
    assert doing.ended == [(job.id, FINE.result)]


@pytest.mark.parametrize("at_its_end", [False, True])
async def test_a_fault_that_somebody_has_to_mend(path: Path, at_its_end: bool) -> None:
    """A job that a read-only ledger stops time and again is taken up later, and no death."""
    doing = Handler(held={A})
    with capture_logs():  # a traceback takes a second to be shown
        async with working(path, doing) as (worker, ledger):
            faulty = Faulty(ledger)
            (job,) = await worker.submit([A], Cause.WEBHOOK, settle=0.05)
            for _ in range(4):
                if at_its_end:
                    await until(lambda: doing.running == [A])
                faulty.refusals = [sqlite3.SQLITE_READONLY]
                doing.gate.set()
                with pytest.raises(LedgerError, match="read-only"):
                    await within(worker.finished(job))
                await until(lambda: worker.busy == 0)
                doing.gate.clear()
                if not at_its_end:
                    doing.gate.set()
                    break
                await worker.resume()
            assert ledger.unfinished() == [job]
            doing.gate.set()
            await worker.resume()
            await until(lambda: worker.busy == 0)
            assert [record.outcome for record in ledger.jobs(9)] == [FINE]


def outcomes(ledger: Ledger) -> list[Any]:
    """Return the jobs that ended."""
    return [record for record in ledger.jobs(99) if record.outcome is not None]


async def test_resume_leaves_alone_what_is_under_way(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that wait, run, or end while the ledger is read are not taken up a second time."""
    doing = Handler(held={A, B})
    async with working(path, doing) as (worker, ledger):
        jobs = await worker.submit([A, B], Cause.API)
        await until(lambda: len(doing.running) == 2)
        jobs += await worker.submit([A], Cause.API)
        asked = ledger.unfinished

        def slowly(attempts: int = 0) -> list[SyncJob]:
            found = asked(attempts)
            time.sleep(0.2)
            return found

        monkeypatch.setattr(ledger, "unfinished", slowly)
        resuming = asyncio.ensure_future(worker.resume())
        await asyncio.sleep(0.3)
        doing.gate.set()
        await asyncio.gather(*(within(worker.finished(job)) for job in jobs))
        await asyncio.wait_for(resuming, 5)
        await until(lambda: worker.busy == 0)
        assert [record.job.id for record in ledger.jobs(9)] == [job.id for job in jobs[::-1]]
    assert sorted(doing.begun) == [A, A, B]
    assert len(doing.ended) == 3


DEADLY = """
import asyncio, os, signal, sys
from pathlib import Path
from syncd.oci.reference import Reference
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.job import Cause
from syncd.sync.worker import Worker

class Deadly:
    async def sync(self, job):
        os.kill(os.getpid(), signal.SIGKILL)

    async def give_up(self, job, outcome):
        print("gave up", job.id)

async def main():
    async def done(job, outcome):
        print("told", job.id, outcome.result, outcome.message, flush=True)
    worker = Worker(Ledger(Path(sys.argv[1])), Executors(1), Deadly(), 1, done)
    if len(sys.argv) > 2:
        await worker.submit([Reference.parse(sys.argv[2])], Cause.WEBHOOK)
    await worker.resume()
    while worker.busy:
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


def test_three_deaths(path: Path) -> None:
    """A job that kills its process is tried three times, then failed and told, and left alone."""
    codes, told = [], ""
    for arguments in ([str(A)], [], [], [], []):
        ended = subprocess.run(
            [sys.executable, "-c", DEADLY, path, *arguments],
            timeout=30,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        codes.append(ended.returncode)
        told += ended.stdout
    assert codes == [-signal.SIGKILL] * 3 + [0, 0]
    with Ledger(path) as ledger:
        (record,) = ledger.jobs(9)
        assert ledger.unfinished() == []
    assert record.outcome is not None
    assert record.outcome.result is Result.FAILED
    assert "the daemon died 3 times while this job ran" in record.outcome.message
    assert told.count(f"gave up {record.job.id}") == 1
    assert told.count(f"told {record.job.id} failed given up") == 1


async def test_a_clean_stop_is_no_death(path: Path) -> None:
    """A job that is cut short by five stops is taken up again each time."""
    doing = Handler(held={A})
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([A], Cause.API)
        await until(lambda: doing.running == [A])
    for _ in range(4):
        async with working(path, doing) as (worker, ledger):
            await worker.resume()
            await until(lambda: doing.running == [A])
            assert ledger.unfinished() == [job]
    doing.gate.set()
    async with working(path, doing) as (worker, _):
        await worker.resume()
        assert await within(worker.finished(job)) == FINE


async def test_work_that_noticed_the_stop_is_no_death(path: Path) -> None:
    """A job that ended because its work was told to stop does not count either."""
    doing = Handler(outcomes={A: StoppedError("stopping")})
    for _ in range(4):
        async with working(path, doing) as (worker, ledger):
            await worker.submit([A], Cause.API)
            await worker.resume()
            await until(lambda: worker.busy == 0)
    with Ledger(path) as ledger:
        assert ledger.unfinished(attempts=1) == []
        assert all(record.outcome.result is Result.UNCHANGED for record in outcomes(ledger))


async def test_a_burst_on_a_slow_disk(path: Path) -> None:
    """Forty deliveries that come while the disk is busy wait for two flushes, not for forty."""
    doing = Handler()
    tags = [REPOSITORY.with_tag(f"t{number}") for number in range(40)]
    async with working(path, doing) as (worker, ledger):
        Faulty(ledger, seconds=0.3)
        begun = time.monotonic()
        await asyncio.gather(
            *(worker.submit([tag, A], Cause.WEBHOOK, delivery=tag.tag, settle=60) for tag in tags)
        )
        assert time.monotonic() - begun < 1.5
        jobs = {record.job.reference: record.job.id for record in ledger.jobs(99)}
        assert len(jobs) == len(ledger.jobs(99)) == 41
        for tag in tags:
            assert ledger.seen(tag.tag or "") == [jobs[tag], jobs[A]]


async def test_a_burst_that_is_refused(path: Path) -> None:
    """Where the ledger refuses, each caller is told, and there is neither job nor delivery."""
    doing = Handler()
    async with working(path, doing) as (worker, ledger):
        faulty = Faulty(ledger, seconds=0.1)
        first = asyncio.ensure_future(worker.submit([B], Cause.WEBHOOK, delivery="0"))
        await asyncio.sleep(0.05)
        faulty.refusals = [sqlite3.SQLITE_IOERR] * 9
        ends = await asyncio.gather(
            *(worker.submit([A], Cause.WEBHOOK, delivery=str(n)) for n in range(1, 4)),
            return_exceptions=True,
        )
        assert {type(end) for end in ends} == {LedgerUnavailableError}
        await asyncio.wait([first])
        faulty.refusals.clear()
        assert [ledger.seen(str(n)) for n in range(1, 4)] == [None] * 3
        assert A not in [record.job.reference for record in ledger.jobs(9)]
        (job,) = await worker.submit([A], Cause.WEBHOOK, delivery="1")
        assert await within(worker.finished(job)) == FINE


async def test_taken_up_while_it_is_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is written down, and not queued yet, is not taken up beside that."""
    doing, written, go_on = Handler(), threading.Event(), threading.Event()
    async with working(path, doing) as (worker, ledger):
        accept = ledger.accept

        def slow(*args: Any) -> None:
            accept(*args)
            written.set()
            go_on.wait(5)

        monkeypatch.setattr(ledger, "accept", slow)
        submitting = asyncio.ensure_future(worker.submit([A], Cause.API))
        assert await asyncio.to_thread(written.wait, 5)
        resuming = asyncio.ensure_future(worker.resume())
        await asyncio.wait({resuming}, timeout=0.1)
        with capture_logs() as logs:
            go_on.set()
            (job,) = await submitting
            await resuming
            await until(lambda: worker.busy == 0)
    assert [line["event"] for line in logs] == ["started", "unchanged"]
    assert doing.ended == [(job.id, FINE.result)]


def tags_of(image: str, count: int) -> list[Reference]:
    """Return tags of an image of one registry."""
    return [Reference("reg.test", image, f"t{number}") for number in range(count)]


async def test_pushes_overtake_the_backlog(path: Path) -> None:
    """A push is looked at before the tags that the clock brought, and so is a tag that waits."""
    backlog, (pushed,) = tags_of("large", 50), tags_of("small", 1)
    doing = Handler(held={backlog[0]})
    async with working(path, doing, parallel=1) as (worker, _):
        await worker.submit(backlog, Cause.SCHEDULE)
        await until(lambda: doing.running == [backlog[0]])
        jobs = await worker.submit([backlog[40], pushed], Cause.WEBHOOK)
        await asyncio.sleep(0.01)
        doing.gate.set()
        for job in jobs:
            await worker.finished(job)
        assert set(doing.begun[1:3]) == {backlog[40], pushed}


async def test_images_take_turns(path: Path) -> None:
    """An image of many tags does not keep another image of its registry waiting for all of them."""
    many, few = tags_of("large", 50), tags_of("small", 3)
    doing = Handler(held={many[0]})
    async with working(path, doing, parallel=1) as (worker, _):
        await worker.submit(many, Cause.SWEEP)
        await until(lambda: doing.running == [many[0]])
        jobs = await worker.submit(few, Cause.SWEEP)
        await asyncio.sleep(0.01)
        doing.gate.set()
        for job in jobs:
            await worker.finished(job)
        assert len(doing.begun) < 10


async def test_what_a_list_of_tags_warns_of(path: Path) -> None:
    """What the list of tags warns of is in the outcome of the repository's job."""
    doing = Handler(warnings=("too many tags",))
    async with working(path, doing) as (worker, _):
        (job,) = await worker.submit([REPOSITORY], Cause.API)
        outcome = await worker.finished(job)
        assert outcome.warnings == ("too many tags",)
        assert "too many tags" in outcome.message
