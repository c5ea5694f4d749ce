"""Layers pulled by parts in a whole syncd: what the registry is asked, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.limits import Limits
from syncd.oci import BlobCache, open_image
from syncd.progress import Silence
from syncd.sync.job import Cause, LayerBytes, Outcome, Result
from syncd.sync.layer_reading import LayerReading
from syncd.sync.tally import Counted
from syncd.web.markup import size
from tests.convert.parts.test_pull import FIRST, SECOND
from tests.fakes.registry import Faults, Registry
from tests.harness import REPOSITORY, Harness, described
from tests.images import digest, image, write_layout

WHOLE = len(SECOND.stored)


async def rebuilt(
    harness: Harness, registry: Registry, begin: Callable[[Faults], object] = lambda _: None
) -> Outcome:
    """Bring the first image, then let faults begin, and bring its rebuild."""
    registry.push(REPOSITORY, "latest", image(FIRST))
    assert (await harness.bring()).result is Result.PUBLISHED
    registry.push(REPOSITORY, "latest", image(SECOND))
    begin(registry.faults)
    registry.ranges.clear()
    return await harness.bring()


async def fresh(folder: Path, registry: Registry) -> bytes:
    """Return the template of the rebuilt image where nothing was converted before."""
    async with Harness(made(folder), registry) as harness:
        await harness.bring()
        (template,) = harness.templates
        return template.read_bytes()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def newest(harness: Harness) -> bytes:
    return max(harness.templates, key=lambda path: path.stat().st_mtime_ns).read_bytes()


async def test_rebuilt_image(tmp_path: Path, registry: Registry) -> None:
    """Of a rebuilt image few bytes are fetched, the template is the same, and all of it is told."""
    async with Harness(tmp_path, registry) as harness:
        outcome = await rebuilt(harness, registry)
        assert outcome.layers.fetched < WHOLE / 20
        assert outcome.layers.fetched + outcome.layers.saved == WHOLE
        assert outcome.warnings == ()
        totals = harness.services.ledger.tally.totals()
        assert totals[Counted.SAVED, ("parts",)] == outcome.layers.saved
        assert sum(bool(asked) for asked in registry.ranges) == 2
        template = newest(harness)
    assert template == await fresh(tmp_path / "fresh", registry)


async def test_fetched_twice(tmp_path: Path, registry: Registry) -> None:
    """A layer whose parts had to be fetched more than once saved nothing, and never less."""
    opened = open_image(f"oci:{write_layout(tmp_path / 'layout', {'': image(SECOND)})}")
    reading = LayerReading(Silence(), BlobCache(tmp_path / "blobs", Limits()))
    async with Harness(tmp_path, registry) as harness:
        for _ in range(2):
            reading.begin("parts", digest(SECOND.stored), None)(WHOLE - 1)
        tally = harness.services.ledger.tally
        assert reading.count(tally, opened.image) == LayerBytes(2 * (WHOLE - 1), 0)
        assert tally.totals()[Counted.SAVED, ("parts",)] == 0


async def test_told(tmp_path: Path, registry: Registry) -> None:
    """A job's row, the API and the page tell how many bytes of layers came and were saved."""
    async with Harness(tmp_path, registry) as harness:
        for layer in (FIRST, SECOND):
            registry.push(REPOSITORY, "latest", image(layer))
            (job,) = await harness.services.worker.submit([harness.latest], Cause.API)
            await harness.outcome(job.id)
        told = described(await harness.ask("GET", "/api/v1/jobs"), "/api/v1/jobs")["jobs"]
        rows = [record.outcome for record in harness.services.ledger.jobs(10)]
        async with harness.client.get("/") as page:
            text = await page.text()
    layers = sorted(LayerBytes(job["fetched"], job["saved"]) for job in told)
    assert layers == sorted(row.layers for row in rows if row)
    assert LayerBytes(len(FIRST.stored), 0) in layers
    partial = next(found for found in layers if found.saved)
    assert partial.fetched < WHOLE / 20
    assert f"Layers: {size(partial.fetched)} fetched, {size(partial.saved)} saved" in text


async def test_never(tmp_path: Path, registry: Registry) -> None:
    """With partial = "never" no range is asked for."""
    async with Harness(tmp_path, registry, image='partial = "never"') as harness:
        outcome = await rebuilt(harness, registry)
    assert outcome.layers == LayerBytes(WHOLE, 0)
    assert not any(registry.ranges)


def other_ranges(faults: Faults) -> None:
    faults.several = 206
    faults.content_range = "bytes 5-9/1000000"


FAULTS: dict[str, Callable[[Faults], object]] = {
    "no ranges": lambda faults: setattr(faults, "ranges", False),
    "other ranges": other_ranges,
    "shifted": lambda faults: setattr(faults, "shift", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_registry_without_ranges(tmp_path: Path, registry: Registry, fault: str) -> None:
    """A registry that serves no ranges, or others than it was asked for, is asked for the whole."""
    async with Harness(tmp_path, registry) as harness:
        outcome = await rebuilt(harness, registry, FAULTS[fault])
        template = newest(harness)
    assert outcome.layers.saved == 0
    assert outcome.layers.fetched >= WHOLE
    assert bool(outcome.warnings) is (fault == "shifted")
    assert all(digest(SECOND.stored) in warning for warning in outcome.warnings)
    registry.faults = Faults()
    assert template == await fresh(tmp_path / "fresh", registry)


@pytest.mark.parametrize("status", [200, 206, 400, 416])
async def test_one_range_at_a_time(tmp_path: Path, registry: Registry, status: int) -> None:
    """A registry that does not answer several ranges is asked for each, and told nothing twice."""
    async with Harness(tmp_path, registry) as harness:
        outcome = await rebuilt(
            harness, registry, lambda faults: setattr(faults, "several", status)
        )
        template = newest(harness)
    assert outcome.warnings == ()
    assert outcome.layers.fetched < WHOLE / 20
    assert sum("," in asked for asked in registry.ranges) == 1
    assert template == await fresh(tmp_path / "fresh", registry)


def break_ranges(faults: Faults) -> None:
    faults.cut_ranges = [100, 0, 2000]
    faults.busy_ranges = [(429, {"Retry-After": "0"}, b"{}")]


async def test_broken_ranges(tmp_path: Path, registry: Registry) -> None:
    """A range that is cut goes on where it was cut, and a registry that is busy is waited for."""
    async with Harness(tmp_path, registry) as harness:
        outcome = await rebuilt(harness, registry, break_ranges)
        template = newest(harness)
    assert outcome.warnings == ()
    assert outcome.layers.fetched < WHOLE / 20
    assert registry.faults.cut_ranges == []
    assert registry.faults.busy_ranges == []
    assert template == await fresh(tmp_path / "fresh", registry)
