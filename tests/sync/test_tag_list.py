"""Which tags are watched: what `newest:` leaves of a list, and what is passed over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import NoImageError, NotFoundError
from syncd.sync.conditions import Lack, Status
from syncd.sync.job import Result
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.images import Content, artifact, described, index


def made(at: str | None, text: str = "one") -> Content:
    """Return an image that says when it was made."""
    return described(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Env": [f"TEXT={text}"]},
            **({"created": at} if at else {}),
        },
        [],
    )


async def test_newest_by_creation(tmp_path: Path, registry: Registry) -> None:
    """The images that were made last are watched; what a tag means is read once."""
    image = 'tags = ["newest:2 by creation", "not:^x"]'
    async with Harness(tmp_path, registry, image=image) as harness:
        for tag, at in (
            ("old", "2024-01-01T00:00:00Z"),
            ("late", "2026-01-01T00:00:00.123456789+02:00"),
            ("undated", None),
            ("odd", "yesterday"),
            ("middle", "2025-01-01T00:00:00"),
            ("xxx", "2027-01-01T00:00:00Z"),
        ):
            registry.push(REPOSITORY, tag, made(at, tag))
        registry.push(REPOSITORY, "chart", artifact())
        with capture_logs() as logs:
            for _ in range(2):
                watched = await harness.services.engine.watched_tags(harness.repository)
                assert [one.tag for one in watched.tags] == ["middle", "late"]
        assert [entry["event"] for entry in logs] == ["tag passed over"]
        asked = Counter(method for method, path in registry.requests if "list" not in path)
        assert asked == {"HEAD": 2 * 6, "GET": 5 * 2 + 1}
        registry.push(REPOSITORY, "old", made("2028-01-01T00:00:00Z"))
        watched = await harness.services.engine.watched_tags(harness.repository)
        assert [one.tag for one in watched.tags] == ["late", "old"]


async def test_unreadable_creation(tmp_path: Path, registry: Registry) -> None:
    """An image that cannot be read is no old one: the list counts as not read."""
    async with Harness(
        tmp_path, registry, image='tags = ["v1", "newest:1 by creation"]'
    ) as harness:
        registry.push(REPOSITORY, "late", image := made("2026-01-01T00:00:00Z"))
        registry.push(REPOSITORY, "v1", made("2025-01-01T00:00:00Z"))
        registry.replace_blob(image.document["config"]["digest"], None)
        listing = await harness.services.engine.tags.watched(harness.repository)
        assert [one.tag for one in listing.tags] == ["v1"]
        assert isinstance(listing.fault, NotFoundError)


async def test_overtaken_tags(tmp_path: Path, registry: Registry) -> None:
    """A tag that newer ones have overtaken is not watched any more, until these are gone."""
    async with Harness(tmp_path, registry, image='tags = ["newest:1"]') as harness:
        conditions = harness.services.ledger.conditions
        registry.push(REPOSITORY, "1.0.0", sample())
        await harness.bring("1.0.0")
        registry.push(REPOSITORY, "1.1.0", sample("new"))
        await harness.services.sweep.look()
        (row,) = conditions.all()
        assert (row.place.reference.tag, row.lack) == ("1.0.0", Lack.WATCH)
        assert "newer tags" in row.reason
        registry.untag(REPOSITORY, "1.1.0")
        await harness.services.sweep.look()
        (row,) = conditions.all()
        assert (row.status, row.lack) == (Status.OK, None)


async def test_passed_over(tmp_path: Path, registry: Registry) -> None:
    """What a pattern names and is no image costs one job, and is told once, until it is another."""
    async with Harness(tmp_path, registry, image='tags = ["re:^v"]') as harness:
        registry.push(REPOSITORY, "v1", artifact())
        registry.push(REPOSITORY, "v2", index(attestation=True))
        registry.push(REPOSITORY, "v3", index(artifact()))
        stale = await harness.services.sweep.look()
        assert [one.tag for one in stale.stale] == ["v1", "v2", "v3"]
        with capture_logs() as logs:
            for tag in ("v1", "v2", "v3", "v1"):
                outcome = await harness.bring(tag)
                assert outcome.result is Result.UNCHANGED
                assert "not a container image" in outcome.message
        assert [entry["event"] for entry in logs].count("tag passed over") == 3
        for _ in range(2):
            swept = await harness.services.sweep.look()
            assert (swept.stale, swept.worked) == ([], True)
        assert harness.services.ledger.conditions.all() == []
        registry.push(REPOSITORY, "v1", sample())
        swept = await harness.services.sweep.look()
        assert [one.tag for one in swept.stale] == ["v1"]
        assert (await harness.bring("v1")).result is Result.PUBLISHED
        registry.push(REPOSITORY, "v1", artifact())
        await harness.bring("v1")
        (row,) = harness.services.ledger.conditions.all()
        assert (row.lack, "no container image" in row.reason) == (Lack.WATCH, True)


async def test_no_image_by_name(tmp_path: Path, registry: Registry) -> None:
    """What a name means and is no image is a failure, though a pattern matches it, too."""
    async with Harness(tmp_path, registry, image='tags = ["v1", "re:^v"]') as harness:
        registry.push(REPOSITORY, "v1", artifact())
        with pytest.raises(NoImageError):
            await harness.bring("v1")
        (row,) = harness.services.ledger.conditions.all()
        assert row.status is Status.FAILING
