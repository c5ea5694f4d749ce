"""What `syncd.schedule` promises: once a week, and the net under what was lost in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.config import load
from syncd.job import Cause
from syncd.schedule import Schedule
from tests.fakes.registry import Registry
from tests.houses import REPOSITORY, House, sample

WEEK = timedelta(days=7)


@asynccontextmanager
async def started(house: House) -> AsyncIterator[Schedule]:
    """Run a schedule on a house."""
    schedule = Schedule(house.parts.sync, house.parts.worker, house.parts.ledger)
    schedule.start()
    try:
        yield schedule
    finally:
        schedule.stop()


def last_run(house: House, ago: timedelta) -> datetime:
    """Let the weekly run have happened so long ago."""
    at = datetime.now(UTC) - ago
    with house.parts.ledger._transaction() as db:
        db.execute("INSERT OR REPLACE INTO clock VALUES ('weekly', ?)", (at.isoformat(),))
    return at


def causes(house: House) -> list[Cause]:
    """Return why there are jobs."""
    return [record.job.cause for record in house.parts.ledger.jobs(100)]


def plan(schedule: Schedule) -> dict[str, datetime]:
    """Return when each kind of run comes next."""
    return {job.name.rpartition(".")[2]: job.next_run_time for job in schedule._clock.get_jobs()}


async def test_first_start(tmp_path: Path, registry: Registry) -> None:
    """The first start runs nothing, and remembers when it was."""
    async with House(tmp_path, registry) as house:
        before = datetime.now(UTC)
        async with started(house):
            pass
        assert causes(house) == []
        assert house.parts.ledger.last_run("weekly") >= before


@pytest.mark.parametrize("ago", [WEEK, 3 * WEEK, 100 * WEEK])
async def test_missed_run(ago: timedelta, tmp_path: Path, registry: Registry) -> None:
    """A weekly run missed while syncd was down is made up, once, however many were missed."""
    async with House(tmp_path, registry) as house:
        before = last_run(house, ago)
        for _ in range(2):
            async with started(house):
                assert causes(house) == [Cause.SCHEDULE]
        assert house.parts.ledger.last_run("weekly") > before


async def test_run_not_missed(tmp_path: Path, registry: Registry) -> None:
    """Before the week's time has come nothing is made up."""
    async with House(tmp_path, registry) as house:
        soon = datetime.now(UTC) + timedelta(days=1)
        line = f"{soon.minute} {soon.hour} * * {soon:%a}"
        config = house.parts.sync.config
        schedule = config.schedule.model_copy(update={"weekly": line})
        house.parts.sync.config = config.model_copy(update={"schedule": schedule})
        last_run(house, timedelta(days=5))
        async with started(house):
            assert causes(house) == []
        last_run(house, timedelta(days=7))
        async with started(house):
            assert causes(house) == [Cause.SCHEDULE]


async def test_plan(tmp_path: Path, registry: Registry) -> None:
    """By default the clock runs Sundays at half past eleven at night UTC, and sweeps each hour."""
    async with House(tmp_path, registry) as house, started(house) as schedule:
        planned = plan(schedule)
        assert set(planned) == {"weekly", "sweep"}
        assert f"{planned['weekly']:%a %H:%M %Z}" == "Sun 23:30 UTC"
        assert timedelta(minutes=59) < planned["sweep"] - datetime.now(UTC) <= timedelta(hours=1)


async def test_new_times(tmp_path: Path, registry: Registry) -> None:
    """Another configuration's times count at once; a sweep can be off."""
    async with House(tmp_path, registry) as house, started(house) as schedule:
        text = house.config.read_text()
        house.config.write_text(f'{text}[schedule]\nweekly = "0 1 * * 0"\nsweep = "off"\n')
        schedule.apply(load(house.config))
        assert {name: f"{at:%a %H:%M}" for name, at in plan(schedule).items()} == {
            "weekly": "Sun 01:00"
        }


async def test_weekly(tmp_path: Path, registry: Registry) -> None:
    """The weekly run looks at everything watched."""
    async with House(tmp_path, registry) as house, started(house) as schedule:
        registry.push(REPOSITORY, "latest", sample())
        schedule.weekly()
        (record,) = house.parts.ledger.jobs(9)
        assert (record.job.reference, record.job.cause) == (house.repository, Cause.SCHEDULE)
        await house.outcome(record.job.id)
        assert len(house.templates) == 1


async def test_sweep(tmp_path: Path, registry: Registry) -> None:
    """A sweep is one HEAD a tag, and makes jobs only for those that are not there as they are."""
    async with House(tmp_path, registry, image='tags = ["a", "b", "c", "d"]') as house:
        for tag in "abcd":
            registry.push(REPOSITORY, tag, sample(tag))
        async with started(house) as schedule:
            schedule.everything(Cause.SIGNAL)
            (job,) = house.parts.ledger.jobs(1)
            await house.outcome(job.job.id)
            registry.push(REPOSITORY, "b", sample("moved"))
            next(path for path in house.templates if "_c_" in path.name).unlink()
            registry.requests.clear()
            house.parts.worker._slots = asyncio.Semaphore(0)
            await schedule.sweep()
            assert sorted(registry.requests) == [
                ("HEAD", f"/v2/{REPOSITORY}/manifests/{tag}") for tag in "abcd"
            ]
            swept = [r.job for r in house.parts.ledger.jobs(99) if r.job.cause is Cause.SWEEP]
            assert {job.reference.tag for job in swept} == {"b", "c"}


async def test_sweep_goes_on(tmp_path: Path, registry: Registry) -> None:
    """A tag that cannot be asked for keeps no other from being swept."""
    async with House(tmp_path, registry, image='tags = ["none", "there"]') as house:
        registry.push(REPOSITORY, "there", sample())
        async with started(house) as schedule:
            house.parts.worker._slots = asyncio.Semaphore(0)
            await schedule.sweep()
            assert [r.job.reference.tag for r in house.parts.ledger.jobs(9)] == ["there"]


async def test_sweep_of_patterns(tmp_path: Path, registry: Registry) -> None:
    """A sweep finds tags that are new; a registry that lists none is no end of it."""
    patterns = 'tags = ["re:^v"]'
    async with House(tmp_path, registry, image=patterns) as house, started(house) as schedule:
        house.parts.worker._slots = asyncio.Semaphore(0)
        registry.faults.refusals = [(404, {}, b"")]
        await schedule.sweep()
        assert causes(house) == []
        registry.push(REPOSITORY, "v9", sample())
        await schedule.sweep()
        assert [r.job.reference.tag for r in house.parts.ledger.jobs(9)] == ["v9"]


async def test_a_full_ledger_does_not_end_the_clock(tmp_path: Path, registry: Registry) -> None:
    """What cannot be written down is a line in the log."""
    async with House(tmp_path, registry) as house, started(house) as schedule:
        house.parts.ledger._db.execute("DROP TABLE jobs")
        schedule.everything(Cause.SIGNAL)
        await schedule.sweep()
