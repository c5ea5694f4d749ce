"""What `schedule` promises: once a week, and the net under what was lost in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.oci import Reference
from syncd.service.schedule import Schedule
from syncd.sync.conditions import Failed, Lack, Place, Status
from syncd.sync.job import Cause, Outcome, SyncJob
from tests.clocks import HandClock
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.metrics import scrape
from tests.waiting import until

WEEK = timedelta(days=7)


@asynccontextmanager
async def started(harness: Harness, clock: HandClock | None = None) -> AsyncIterator[Schedule]:
    """Run a schedule on a harness."""
    schedule = Schedule(harness.services, clock)
    await schedule.start()
    try:
        yield schedule
    finally:
        schedule.stop()


def last_run(harness: Harness, ago: timedelta) -> datetime:
    """Let the weekly run have happened so long ago."""
    at = datetime.now(UTC) - ago
    with harness.services.ledger._transaction() as db:
        db.execute("INSERT OR REPLACE INTO clock VALUES ('weekly', ?)", (at.isoformat(),))
    return at


def causes(harness: Harness) -> list[Cause]:
    """Return why the watched repository has jobs."""
    jobs = [record.job for record in harness.services.ledger.jobs(100)]
    return [job.cause for job in jobs if job.reference == harness.repository]


@asynccontextmanager
async def swept(harness: Harness, clock: HandClock) -> AsyncIterator[list[datetime]]:
    """Run a schedule whose sweeps only tell when they began."""
    begun: list[datetime] = []
    schedule = Schedule(harness.services, clock)

    async def sweep() -> None:
        begun.append(clock.now())
        harness.services.ledger.mark_run("sweep", clock.now())

    schedule.sweep = sweep  # type: ignore[method-assign] # what it does is tested below
    await schedule.start()
    try:
        yield begun
    finally:
        schedule.stop()


async def test_first_start(tmp_path: Path, registry: Registry) -> None:
    """The first start makes up for no weekly run, and remembers when it was."""
    async with Harness(tmp_path, registry) as harness:
        before = datetime.now(UTC)
        async with started(harness):
            pass
        assert causes(harness) == []
        assert harness.services.ledger.last_run("weekly") >= before


@pytest.mark.parametrize("ago", [WEEK, 3 * WEEK, 100 * WEEK])
async def test_missed_run(ago: timedelta, tmp_path: Path, registry: Registry) -> None:
    """A weekly run missed while syncd was down is made up, once, however many were missed."""
    async with Harness(tmp_path, registry) as harness:
        before = last_run(harness, ago)
        for _ in range(2):
            async with started(harness):
                assert causes(harness) == [Cause.SCHEDULE]
        assert harness.services.ledger.last_run("weekly") > before


async def test_run_not_missed(tmp_path: Path, registry: Registry) -> None:
    """Before the week's time has come nothing is made up."""
    async with Harness(tmp_path, registry) as harness:
        soon = datetime.now(UTC) + timedelta(days=1)
        line = f"{soon.minute} {soon.hour} * * {soon:%a}"
        config = harness.services.live.config
        schedule = config.schedule.model_copy(update={"weekly": line})
        harness.configure(schedule=schedule)
        last_run(harness, timedelta(days=5))
        async with started(harness):
            assert causes(harness) == []
        last_run(harness, timedelta(days=7))
        async with started(harness):
            assert causes(harness) == [Cause.SCHEDULE]


async def test_default_times(tmp_path: Path, registry: Registry) -> None:
    """By default the weekly run is on Sundays at half past eleven at night UTC."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock):
        await harness.services.worker.stop()
        await clock.run(days=3, hours=11, minutes=29)
        assert causes(harness) == []
        await clock.run(minutes=1)
        await until(lambda: causes(harness) == [Cause.SCHEDULE])
        assert f"{clock.now():%a %H:%M}" == "Sun 23:30"


async def test_new_times(tmp_path: Path, registry: Registry) -> None:
    """Another configuration's times count at once; a sweep can be off."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock) as begun:
        await harness.services.worker.stop()
        await clock.settled()
        text = harness.config.read_text()
        harness.config.write_text(f'{text}[schedule]\nweekly = "0 1 * * 5"\nsweep = "off"\n')
        harness.services.live.reload()
        await clock.run(hours=14)
        await until(lambda: causes(harness) == [Cause.SCHEDULE])
        assert begun == []


async def test_steps_of_the_clock_move_no_sweep(tmp_path: Path, registry: Registry) -> None:
    """A sweep comes each hour that passes, whatever the time of day is set to."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock) as begun:
        for step in (-2, 2, 900, -1800):
            await clock.run(minutes=30)
            clock.set(days=step)
            before = len(begun)
            await clock.run(minutes=29)
            assert len(begun) == before
            await clock.run(minutes=1)
            assert len(begun) == before + 1


async def test_suspension_counts(tmp_path: Path, registry: Registry) -> None:
    """After a night's suspension the sweep comes within a minute, once."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock) as begun:
        await clock.run(minutes=5)
        clock.suspend(hours=9)
        await clock.run(minutes=1)
        assert len(begun) == 1
        await clock.run(minutes=58)
        assert len(begun) == 1
        await clock.run(minutes=2)
        assert len(begun) == 2


async def test_the_weekly_run_survives_a_wrong_year(tmp_path: Path, registry: Registry) -> None:
    """A clock that was years ahead for a while does not cost the weekly runs of these years."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, started(harness, clock):
        await harness.services.worker.stop()
        clock.set(days=900)
        await clock.run(minutes=2)
        await until(lambda: causes(harness) == [Cause.SCHEDULE])
        ahead = clock.now() - timedelta(hours=1)
        await until(lambda: harness.services.ledger.last_run("weekly") > ahead)
        clock.set(days=-900)
        await clock.run(minutes=2)
        await until(lambda: harness.services.ledger.last_run("weekly") <= clock.now())
        with harness.services.ledger._transaction() as db:
            db.execute("DELETE FROM jobs")
        harness.services.worker._queues.clear()
        await clock.run(days=3, hours=11, minutes=30)
        await until(lambda: causes(harness) == [Cause.SCHEDULE])


async def test_a_weekly_run_that_was_not_accepted_is_not_marked(
    tmp_path: Path, registry: Registry
) -> None:
    """The week's run counts as done once the ledger has its jobs, and is tried until it has."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock):
        await harness.services.worker.stop()
        ledger = harness.services.ledger
        await clock.run(days=3)
        before = ledger.last_run("weekly")
        ledger._db.execute("ALTER TABLE jobs RENAME TO away")
        await clock.run(hours=12)
        assert ledger.last_run("weekly") == before
        ledger._db.execute("ALTER TABLE away RENAME TO jobs")
        await clock.run(minutes=2)
        await until(lambda: causes(harness) == [Cause.SCHEDULE])
        await until(lambda: ledger.last_run("weekly") > before)


async def test_a_restart_moves_no_sweep(tmp_path: Path, registry: Registry) -> None:
    """A daemon that is started anew every half hour sweeps each hour all the same."""
    clock, sweeps = HandClock(), 0
    async with Harness(tmp_path, registry) as harness:
        for _ in range(5):
            async with swept(harness, clock) as begun:
                await clock.run(minutes=31)
                sweeps += len(begun)
    assert sweeps == 2


async def test_weekly(tmp_path: Path, registry: Registry) -> None:
    """The weekly run looks at everything watched."""
    async with Harness(tmp_path, registry) as harness, started(harness) as schedule:
        registry.push(REPOSITORY, "latest", sample())
        await schedule.weekly()
        await until(lambda: causes(harness) == [Cause.SCHEDULE])
        record = harness.services.ledger.jobs(9)[-1]
        await harness.outcome(record.job.id)
        assert len(harness.templates) == 1


async def test_sweep(tmp_path: Path, registry: Registry) -> None:
    """A sweep is one HEAD a tag, and makes jobs only for those that are not there as they are."""
    async with Harness(tmp_path, registry, image='tags = ["a", "b", "c", "d"]') as harness:
        for tag in "abcd":
            registry.push(REPOSITORY, tag, sample(tag))
        schedule = Schedule(harness.services)
        await schedule.everything(Cause.SIGNAL)
        job = harness.services.ledger.jobs(99)[-1]
        await harness.outcome(job.job.id)
        registry.push(REPOSITORY, "b", sample("moved"))
        next(path for path in harness.templates if "_c_" in path.name).unlink()
        registry.requests.clear()
        await harness.services.worker.stop()
        before = datetime.now(UTC)
        await schedule.sweep()
        assert harness.services.ledger.last_run("sweep") >= before
        assert sorted(registry.requests) == [
            ("HEAD", f"/v2/{REPOSITORY}/manifests/{tag}") for tag in "abcd"
        ]
        swept = [r.job for r in harness.services.ledger.jobs(99) if r.job.cause is Cause.SWEEP]
        assert {job.reference.tag for job in swept} == {"b", "c"}


async def test_a_sweep_counts_what_fails(tmp_path: Path, registry: Registry) -> None:
    """The log counts the tags that fail by a list that cannot be read, as the conditions do."""
    async with Harness(tmp_path, registry, image='tags = ["main", "re:^v"]') as harness:
        for tag in ("main", "v1", "v2"):
            registry.push(REPOSITORY, tag, sample(tag))
        schedule = Schedule(harness.services)
        await harness.bring("main")
        await harness.bring("v1")
        await harness.bring("v2")
        registry.faults.refusals = [(403, {}, b'{"errors": []}')] * 20
        with capture_logs() as logs:
            await schedule.sweep()
        (swept,) = [line for line in logs if line["event"] == "swept"]
        assert (swept["tags"], swept["failing"], swept["stale"]) == (3, 3, 0)


async def test_sweeps_are_counted(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep counts as completed with its duration, or as broken off by a fault."""
    async with Harness(tmp_path, registry) as harness:
        ledger, clock = harness.services.ledger, HandClock()
        schedule = Schedule(harness.services, clock)
        await schedule.sweep()
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "mark_run", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await schedule.sweep()
        seen = await scrape(harness)
    assert seen("syncd_sweeps_total", result="completed") == 1
    assert seen("syncd_sweeps_total", result="broken_off") == 1
    assert seen("syncd_sweep_duration_seconds_count") == 1


async def test_sweep_goes_on(tmp_path: Path, registry: Registry) -> None:
    """A tag that cannot be asked for keeps no other from being swept."""
    async with Harness(tmp_path, registry, image='tags = ["none", "there"]') as harness:
        registry.push(REPOSITORY, "there", sample())
        await harness.services.worker.stop()
        await Schedule(harness.services).sweep()
        assert [r.job.reference.tag for r in harness.services.ledger.jobs(9)] == ["there"]


async def test_sweep_of_patterns(tmp_path: Path, registry: Registry) -> None:
    """A sweep finds tags that are new; a registry that lists none is no end of it."""
    patterns = 'tags = ["re:^v"]'
    async with Harness(tmp_path, registry, image=patterns) as harness, started(harness) as schedule:
        await harness.services.worker.stop()
        registry.faults.refusals = [(404, {}, b"")]
        await schedule.sweep()
        assert causes(harness) == []
        registry.push(REPOSITORY, "v9", sample())
        await schedule.sweep()
        assert [r.job.reference.tag for r in harness.services.ledger.jobs(9)] == ["v9"]


async def test_a_full_ledger_does_not_end_the_clock(tmp_path: Path, registry: Registry) -> None:
    """What cannot be written down is a line in the log."""
    async with Harness(tmp_path, registry) as harness, started(harness) as schedule:
        harness.services.ledger._db.execute("DROP TABLE jobs")
        await schedule.everything(Cause.SIGNAL)
        await schedule.sweep()


async def test_reload_keeps_the_sweeps_time(tmp_path: Path, registry: Registry) -> None:
    """Reloads that change something else, or nothing, do not move the sweep."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock) as begun:
        text = harness.config.read_text()
        for jobs in range(1, 6):
            await clock.run(minutes=10)
            harness.config.write_text(f"{text}[worker]\njobs = {jobs}\n")
            harness.services.live.reload()
        await clock.run(minutes=9)
        assert begun == []
        await clock.run(minutes=1)
        assert len(begun) == 1


async def test_a_new_interval_counts_from_the_last_sweep(
    tmp_path: Path, registry: Registry
) -> None:
    """Another interval is counted from the last sweep; one that is over by now is due at once."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock) as begun:
        text = harness.config.read_text()
        await clock.run(minutes=30)
        harness.config.write_text(f'{text}[schedule]\nsweep = "40m"\n')
        harness.services.live.reload()
        await clock.run(minutes=9)
        assert begun == []
        await clock.run(minutes=1)
        assert len(begun) == 1
        await clock.run(minutes=30)
        harness.config.write_text(f'{text}[schedule]\nsweep = "20m"\n')
        harness.services.live.reload()
        await clock.run(seconds=1)
        assert len(begun) == 2


def looked_at(harness: Harness) -> set[str | None]:
    """Return the tags that have a condition."""
    return {row.place.reference.tag for row in harness.services.ledger.conditions.all()}


async def test_a_start_looks_at_what_is_unknown(tmp_path: Path, registry: Registry) -> None:
    """A start looks at watched tags of which nothing is known, and at no others."""
    tags = 'tags = ["a", "re:^v"]'
    async with Harness(tmp_path, registry, image=tags) as harness:
        for tag in ("a", "v1", "other"):
            registry.push(REPOSITORY, tag, sample())
        await harness.bring("a")
        async with started(harness, HandClock()):
            await until(lambda: looked_at(harness) == {"a", "v1"})
        assert [r.job.reference.tag for r in harness.services.ledger.jobs(9)] == ["v1"]
        async with started(harness, clock := HandClock()):
            await clock.run(minutes=3)
        assert len(harness.services.ledger.jobs(9)) == 1


async def test_a_start_leaves_a_job_alone(tmp_path: Path, registry: Registry) -> None:
    """A tag whose job was taken up after a crash gets no second job by the start."""
    async with Harness(tmp_path, registry) as harness:
        ledger, begun = harness.services.ledger, asyncio.Event()
        ledger.accept([taken_up := SyncJob(harness.latest, Cause.WEBHOOK)])

        async def endless(job: SyncJob) -> Outcome:
            begun.set()
            await asyncio.sleep(3600)
            raise AssertionError("the job is cut short")

        harness.services.engine.sync = endless  # type: ignore[method-assign] # it takes long
        await harness.services.worker.resume()
        await begun.wait()
        await Schedule(harness.services).unknown()
        assert [record.job for record in ledger.jobs(9)] == [taken_up]


async def test_a_reload_looks_at_what_is_new(tmp_path: Path, registry: Registry) -> None:
    """A tag or a target that a reload brings is looked at at once; what is not watched is told."""
    async with Harness(tmp_path, registry, image='tags = ["a"]') as harness:
        for tag in ("a", "b"):
            registry.push(REPOSITORY, tag, sample())
        async with started(harness, HandClock()):
            await until(lambda: looked_at(harness) == {"a"})
            text = harness.config.read_text()
            second = f'[[target]]\nname = "second"\ntype = "directory"\npath = "{tmp_path}/2"\n'
            harness.config.write_text(text.replace('["a"]', '["b"]') + second)
            harness.services.live.reload()
            rows = harness.services.ledger.conditions.all
            await until(lambda: len([r for r in rows() if r.status is Status.OK]) == 2)
        (lost,) = [row for row in rows() if row.place.reference.tag == "a"]
        assert (lost.status, lost.lack, len(lost.volumes)) == (Status.ABSENT, Lack.WATCH, 1)


async def test_retry(tmp_path: Path, registry: Registry) -> None:
    """A passing failure is tried again after 1, 5 and 15 minutes, and then by the sweep only."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        rows, tried = harness.services.ledger.conditions, []
        down = Failed("the registry is down", passing=True)
        place = Place(harness.latest, "local")
        rows.write([(place, down)], clock.now())

        async def submit(references: list[Reference], cause: Cause) -> None:
            tried.append((clock.now(), cause, references))
            rows.write([(place, down)], clock.now())

        async with swept(harness, clock):
            await clock.settled()
            harness.services.worker.submit = submit  # type: ignore[method-assign, assignment] # fails
            begun = clock.now()
            for _ in range(50):
                await clock.run(minutes=1)
                await asyncio.sleep(0.01)
        waits = [round((at - begun) / timedelta(minutes=1)) for at, _, _ in tried]
        assert waits == [1, 6, 21]
        assert {cause for _, cause, _ in tried} == {Cause.RETRY}
        assert all(references == [harness.latest] for _, _, references in tried)


async def test_a_retry_that_takes_long(tmp_path: Path, registry: Registry) -> None:
    """A failure that is being tried is not tried a second time beside that."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness:
        harness.services.ledger.conditions.write(
            [(Place(harness.latest, "local"), Failed("down", passing=True))], clock.now()
        )
        submitted: list[Reference] = []

        async def submit(references: list[Reference], cause: Cause) -> None:
            submitted.extend(references)

        async with swept(harness, clock):
            harness.services.worker.submit = submit  # type: ignore[method-assign, assignment] # waits
            for _ in range(5):
                await clock.run(minutes=1)
                await asyncio.sleep(0.01)
        assert submitted == [harness.latest]


async def test_a_short_outage(tmp_path: Path, registry: Registry) -> None:
    """A registry that is back after two minutes is asked then, not at the next sweep."""
    clock = HandClock()
    async with Harness(tmp_path, registry) as harness, swept(harness, clock):
        registry.push(REPOSITORY, "latest", sample())
        rows = harness.services.ledger.conditions
        await until(lambda: [row.status for row in rows.all()] == [Status.OK])
        down = Failed("the registry is down", passing=True)
        rows.write([(Place(harness.latest, "local"), down)], clock.now())
        await clock.run(minutes=1, seconds=5)
        await until(lambda: [row.status for row in rows.all()] == [Status.OK])


async def test_sweep_tidies(tmp_path: Path, registry: Registry) -> None:
    """A sweep removes what a dead conversion left behind."""
    async with Harness(tmp_path, registry) as harness, started(harness) as schedule:
        left = tmp_path / "state" / "spool" / "job-dead"
        left.mkdir(parents=True)
        (left / "part").touch()
        await schedule.sweep()
        assert harness.spool == []


async def test_one_sweep_at_a_time(tmp_path: Path, registry: Registry) -> None:
    """A sweep that takes longer than its interval is not begun again beside itself."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        begun = 0
        over = asyncio.Event()

        async def slow() -> None:
            nonlocal begun
            begun += 1
            await over.wait()

        schedule = harness.services.live.config.schedule.model_copy(
            update={"sweep": timedelta(seconds=1)}
        )
        harness.configure(schedule=schedule)
        harness.services.engine.tidy = slow  # type: ignore[method-assign] # tidying takes long
        async with started(harness):
            await asyncio.sleep(2.5)
            assert begun == 1
            over.set()


async def test_verify(tmp_path: Path, registry: Registry) -> None:
    """Published files are compared when it is their turn; `off` compares none."""
    async with Harness(tmp_path, registry) as harness, started(harness) as schedule:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        (path,) = harness.templates
        path.write_bytes(b"x" * path.stat().st_size)
        services = harness.services
        config = services.live.config.schedule
        for verify, state in ((None, "ok"), (timedelta(days=30), "ok"), (timedelta(0), "changed")):
            harness.configure(schedule=config.model_copy(update={"verify": verify}))
            await schedule.verify()
            proof = services.ledger.proofs.of("local", path.name)
            assert proof is not None
            assert proof.state == state


async def test_verify_by_itself(tmp_path: Path, registry: Registry) -> None:
    """The clock looks once an hour whether a published file is to be compared."""
    clock, looks = HandClock(), 0
    async with Harness(tmp_path, registry) as harness:
        schedule = Schedule(harness.services, clock)

        async def verify() -> None:
            nonlocal looks
            looks += 1

        schedule.verify = verify  # type: ignore[method-assign] # what it does is tested above
        await schedule.start()
        try:
            await clock.run(minutes=59)
            assert looks == 0
            await clock.run(minutes=2)
            assert looks == 1
            await clock.run(hours=2)
            assert looks == 3
        finally:
            schedule.stop()
