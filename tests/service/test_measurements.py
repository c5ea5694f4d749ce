"""What `service.measurements` promises: totals survive a crash, and no look waits for another."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from syncd.errors import LedgerUnavailableError, TargetUnavailableError
from syncd.service.measurements import Measurements
from syncd.sync.ledger import Ledger
from syncd.sync.tally import Counted
from syncd.targets.target import Space
from tests.fakes.registry import Registry
from tests.harness import Harness, sample
from tests.metrics import scrape

TWO = '[[target]]\nname = "other"\ntype = "directory"\npath = "{}/other"\n'


class Minutes:
    """A clock whose minutes pass when a test says so."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self._begun, self._over = asyncio.Event(), asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Wait until the next minute."""
        self.waited.append(seconds)
        self._over.clear()
        self._begun.set()
        await self._over.wait()

    async def pass_one(self) -> None:
        """Let one minute pass, and wait until what it brings is done."""
        await self._begun.wait()
        self._begun.clear()
        self._over.set()
        await self._begun.wait()


async def test_totals_survive_a_crash(tmp_path: Path, registry: Registry) -> None:
    """What was counted is in the ledger after a minute, without an orderly end."""
    async with Harness(tmp_path, registry) as harness:
        minutes = Minutes()
        keeper = asyncio.create_task(Measurements(harness.services).keep(minutes.wait))
        harness.services.ledger.tally.add(Counted.FETCHED, "other", amount=5)
        await minutes.pass_one()
        with Ledger(tmp_path / "state" / "ledger.sqlite") as another:
            assert another.tally.totals()[Counted.FETCHED, ("other",)] == 5
        assert minutes.waited == [60.0, 60.0]
        keeper.cancel()


async def test_a_fault_of_the_ledger(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that takes nothing now is tried again the next minute."""
    async with Harness(tmp_path, registry) as harness:
        ledger, minutes = harness.services.ledger, Minutes()

        def full(*_: object) -> None:
            raise LedgerUnavailableError("the disk is full")

        keeper = asyncio.create_task(Measurements(harness.services).keep(minutes.wait))
        ledger.tally.add(Counted.FETCHED, "other", amount=5)
        with monkeypatch.context() as patch:
            patch.setattr(ledger.totals, "add", full)
            await minutes.pass_one()
        assert ledger.totals.all() == {}
        await minutes.pass_one()
        assert ledger.totals.all() == {(Counted.FETCHED, ("other",)): 5}
        keeper.cancel()


async def test_space(tmp_path: Path, registry: Registry) -> None:
    """The parts of the cache, the state's file system and each target's are told."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(harness.repository.repository, "latest", sample())
        await harness.bring()
        await asyncio.gather(*Measurements(harness.services).look())
        seen = await scrape(harness)
    state = tmp_path / "state"
    for part, folder in {"blobs": "cache", "templates": "made", "unpacked": "unpacked"}.items():
        files = [path for path in (state / folder).rglob("*") if path.is_file()]
        assert seen("syncd_cache_size_bytes", part=part) == sum(f.stat().st_size for f in files) > 0
    for free, size in (
        (seen("syncd_state_free_bytes"), seen("syncd_state_size_bytes")),
        (
            seen("syncd_target_free_bytes", target="local", place="local"),
            seen("syncd_target_size_bytes", target="local", place="local"),
        ),
    ):
        assert 0 < free < size


async def test_a_target_that_cannot_be_asked(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target has no figures while it cannot be asked, nor once it is not configured any more."""
    async with Harness(tmp_path, registry, more=TWO.format(tmp_path)) as harness:
        measurements, live = Measurements(harness.services), harness.services.live
        await asyncio.gather(*measurements.look())
        assert set(harness.services.metrics.usage.targets) == {"local", "other"}

        def vanished() -> list[Space]:
            raise TargetUnavailableError("it vanished")

        monkeypatch.setattr(live.targets["local"], "space", vanished)
        live._targets = {"local": live.targets["local"]}
        await asyncio.gather(*measurements.look())
        seen = await scrape(harness)
    assert not any(name == "syncd_target_free_bytes" for name, _ in seen.series)
    assert seen("syncd_state_free_bytes") > 0


async def test_a_silent_target(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that gives no answer is asked once, and the others are told all the same."""
    answer, asked = threading.Event(), []

    def silent() -> list[Space]:
        asked.append(1)
        answer.wait(20)
        return [Space("other", 1, 2)]

    async with Harness(tmp_path, registry, more=TWO.format(tmp_path)) as harness:
        measurements = Measurements(harness.services)
        monkeypatch.setattr(harness.services.live.targets["other"], "space", silent)
        (hanging,) = [task for task in await _settled(measurements) if not task.done()]
        assert [task for task in await _settled(measurements) if not task.done()] == [hanging]
        seen = await scrape(harness)
        assert seen("syncd_target_free_bytes", target="local", place="local") > 0
        assert not seen.has("syncd_target_free_bytes", target="other", place="other")
        answer.set()
        await hanging
        seen = await scrape(harness)
        assert seen("syncd_target_free_bytes", target="other", place="other") == 1
    assert asked == [1]


async def _settled(measurements: Measurements) -> list[asyncio.Task[None]]:
    """Look, and wait until two of three looks are done; return all."""
    looks = measurements.look()
    while sum(task.done() for task in looks) < 2:
        await asyncio.wait(
            [task for task in looks if not task.done()], return_when=asyncio.FIRST_COMPLETED
        )
    return looks
