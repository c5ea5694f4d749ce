"""What `deaths` promises: an image that kills its conversions is given up, and no other suffers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from syncd.convert import ConversionProcesses
from syncd.convert.fork_server import Main
from syncd.errors import ConversionDiedError, ImageError
from syncd.oci import Digest
from syncd.sync.conditions import Place, Status
from syncd.sync.deaths import DEATHS_MAX, Deaths
from syncd.sync.job import Cause, Result
from tests.archives import file
from tests.convert import poisoned
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.images import image, layer
from tests.processes import hanging_below, is_gone, until

POISON = image(layer(file("a", b"1" * 5000)), runtime={"User": "poison"})
TAGS = 'tags = ["latest", "poison"]'
IMAGE, OTHER = Digest.of(b"one"), Digest.of(b"other")


def test_count() -> None:
    """Deaths in a row count, by image; what did not die ends the row."""
    deaths, death = Deaths(), ConversionDiedError("it died", "see the journal")

    def counted(image: Digest) -> type[Exception]:
        return type(deaths.count(image, death))

    assert [counted(IMAGE) for _ in range(DEATHS_MAX)] == [
        *[ConversionDiedError] * (DEATHS_MAX - 1),
        ImageError,
    ]
    assert counted(OTHER) is ConversionDiedError
    deaths.forget(IMAGE)
    assert counted(IMAGE) is ConversionDiedError


def test_bound_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many images the one whose death is longest ago is forgotten."""
    monkeypatch.setattr("syncd.sync.deaths._IMAGES_MAX", 2)
    deaths, death = Deaths(), ConversionDiedError("it died")
    for digest in (IMAGE, OTHER, IMAGE, Digest.of(b"third"), IMAGE):
        last = deaths.count(digest, death)
    assert isinstance(last, ImageError)
    assert len(deaths._counts) == 2


@pytest.mark.parametrize("main", [poisoned.killed, poisoned.crashed])
async def test_poison(main: Main, tmp_path: Path, registry: Registry) -> None:
    """The daemon outlives an image that kills its conversions, and serves the others meanwhile."""
    registry.push(REPOSITORY, "poison", POISON)
    async with Harness(
        tmp_path, registry, processes=ConversionProcesses(main), image=TAGS
    ) as harness:
        worker = harness.services.worker
        tag = harness.repository.with_tag("poison")
        for death in range(1, DEATHS_MAX + 1):
            registry.push(REPOSITORY, "latest", sample(f"{death}"))
            bad, good = await worker.submit([tag, harness.latest], Cause.API)
            ends = await asyncio.gather(worker.finished(bad), worker.finished(good))
            assert [end.result for end in ends] == [Result.FAILED, Result.PUBLISHED]
            assert ends[0].temporary is (death < DEATHS_MAX)
            rows = {row.place: row for row in harness.services.ledger.conditions.of(tag)}
            row = rows[Place(tag, "local")]
            assert row.status is Status.FAILING
            assert row.passing is (death < DEATHS_MAX)
            assert "was killed" in row.reason
        assert "given up, since 3 conversions of this image died" in ends[0].message
        assert harness.spool == []
        assert len(harness.templates) == 2  # what retention keeps of the other tag


async def test_stop_with_a_process_that_hangs(tmp_path: Path, registry: Registry) -> None:
    """A daemon that stops takes a conversion along that hangs; its job is resumed, not failed."""
    registry.push(REPOSITORY, "latest", POISON)
    processes = ConversionProcesses(poisoned.hanging)
    async with Harness(tmp_path, registry, processes=processes) as harness:
        (job,) = await harness.services.worker.submit([harness.latest], Cause.API)
        pid = await asyncio.to_thread(hanging_below, tmp_path / "state" / "spool")
        server = processes._server.pid
        assert server is not None
        assert not is_gone(pid)
    await asyncio.to_thread(until, lambda: is_gone(pid) and is_gone(server))
    async with Harness(tmp_path, registry, processes=ConversionProcesses()) as harness:
        assert [left.id for left in harness.services.ledger.unfinished()] == [job.id]
        assert harness.services.ledger.unfinished(1) == []
        await harness.services.worker.resume()
        assert (await harness.outcome(job.id)).result is Result.PUBLISHED
        assert harness.spool == []
