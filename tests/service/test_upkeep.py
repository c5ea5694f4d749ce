"""What `upkeep` promises: a daemon that runs for years keeps its ledger and targets in order."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import LedgerError
from syncd.service.upkeep import keep_in_order
from syncd.sync.job import Cause, SyncJob
from tests.fakes.registry import Registry
from tests.harness import Harness, sample
from tests.sync.test_leftovers import CONTENT, MEANT

LONG_AGO = datetime.now(UTC) - timedelta(days=91)


class Turns:
    """A wait whose end the test gives; `asked` are the seconds that were to be waited."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self.go = asyncio.Semaphore(0)

    async def wait(self, seconds: float) -> None:
        """Wait until the test says so."""
        await self.asked.put(seconds)
        await self.go.acquire()


def left_behind(harness: Harness, number: int) -> Path:
    """Leave old lines, a dead job, and a dead publication; return the published file."""
    ledger = harness.services.ledger
    database = harness.services.live.config.state.paths.ledger
    ledger.accept([SyncJob(harness.latest, Cause.API)], {f"old {number}": []})
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE deliveries SET received = ?", (LONG_AGO.isoformat(),))
    name = f"{number}.tar.zst"
    ledger.intend(replace(MEANT, name=name, target="local"))
    folder = harness.folder / "storage" / "template" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(CONTENT)
    return folder / name


@pytest.mark.parametrize(("sweep", "seconds"), [('"10m"', 600), ('"1d"', 3600), ('"off"', 3600)])
async def test_again_and_again(
    tmp_path: Path, registry: Registry, sweep: str, seconds: int
) -> None:
    """What is old or was left behind is looked for at once, and as often as the sweep."""
    registry.push("org/repo/image", "latest", sample())
    more = f"[schedule]\nsweep = {sweep}"
    async with Harness(tmp_path, registry, more=more) as harness:
        turns, ledger = Turns(), harness.services.ledger
        file = left_behind(harness, 1)
        keeping = asyncio.ensure_future(keep_in_order(harness.services, turns.wait))
        for number in (2, 3):
            assert await asyncio.wait_for(turns.asked.get(), 10) == seconds
            assert ledger.seen(f"old {number - 1}") is None
            assert file.name in [template.name for template in ledger.templates()]
            assert harness.services.worker.busy <= 1
            async with asyncio.timeout(10):
                while ledger.unfinished():  # noqa: ASYNC110 - a thread has no event
                    await asyncio.sleep(0.01)
            file = left_behind(harness, number)
            turns.go.release()
        keeping.cancel()


async def test_a_fault_does_not_end_it(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever one duty meets, the others are done, and all are tried again."""
    async with Harness(tmp_path, registry) as harness:
        turns, services = Turns(), harness.services

        async def refuse() -> None:
            raise LedgerError("not now")

        async def stumble() -> None:
            raise ValueError("oops")

        monkeypatch.setattr(services.worker, "resume", refuse)
        monkeypatch.setattr(type(services.engine), "settle", lambda _: stumble())
        services.ledger.accept([], {"old": []})
        with closing(sqlite3.connect(services.live.config.state.paths.ledger)) as db, db:
            db.execute("UPDATE deliveries SET received = ?", (LONG_AGO.isoformat(),))
        with capture_logs() as logs:
            keeping = asyncio.ensure_future(keep_in_order(services, turns.wait))
            await asyncio.wait_for(turns.asked.get(), 10)
            turns.go.release()
            await asyncio.wait_for(turns.asked.get(), 10)
        keeping.cancel()
        assert services.ledger.seen("old") is None
        assert [line["event"] for line in logs] == ["not kept in order", "fault in syncd"] * 2
