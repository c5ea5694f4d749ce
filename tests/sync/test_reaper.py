"""What `reaper` promises: what is gone is deleted when that is wanted, and nothing else ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.oci import Digest
from syncd.service.schedule import Schedule
from syncd.sync.conditions import Current, Gone, Lack, Place, Status
from syncd.sync.retention import Retained
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample

NOW = timedelta(0)
MONTH = timedelta(days=30)
DENIED: tuple[int, dict[str, str], bytes] = (403, {}, b'{"errors": []}')


async def filled(harness: Harness, registry: Registry, *tags: str) -> None:
    """Publish an image for each tag, and take the tag `old` away from the registry."""
    for tag in tags:
        registry.push(REPOSITORY, tag, sample(tag))
        await harness.bring(tag)
    registry.untag(REPOSITORY, "old")
    await harness.services.sweep.look()


def names(harness: Harness) -> list[str]:
    """Return the tags whose templates are in the target."""
    return [path.name.split("_")[-2] for path in harness.templates]


def aged(harness: Harness, days: float) -> None:
    """Let every condition be true for so many days."""
    since = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    with harness.services.ledger._transaction() as db:
        db.execute("UPDATE conditions SET since = ?", (since,))


def statuses(harness: Harness) -> dict[str | None, Status]:
    return {row.place.reference.tag: row.status for row in harness.services.ledger.conditions.all()}


async def reap(harness: Harness, older_than: timedelta = NOW, *, dry_run: bool = False) -> Retained:
    return await harness.services.reaper.reap(older_than, dry_run=dry_run)


@pytest.mark.parametrize("tags", ['tags = ["old", "new"]', 'tags = ["re:."]'])
async def test_a_tag_that_is_gone(tags: str, tmp_path: Path, registry: Registry) -> None:
    """The templates of a tag that the registry lost are deleted, and its condition is struck."""
    async with Harness(tmp_path, registry, image=tags) as harness:
        await filled(harness, registry, "new", "old")
        would = await reap(harness, dry_run=True)
        assert [template.reference.tag for template in would.gone] == ["old"]
        assert names(harness) == ["new", "old"]
        assert statuses(harness) == {"new": Status.OK, "old": Status.ABSENT}
        done = await reap(harness)
        assert [t.name for t in done.gone] == [t.name for t in would.gone]
        assert names(harness) == ["new"]
        assert statuses(harness) == {"new": Status.OK}
        assert (await reap(harness)).gone == ()


async def test_what_is_not_watched_any_more(tmp_path: Path, registry: Registry) -> None:
    """The templates of what is not watched any more are deleted, all versions of it."""
    async with Harness(tmp_path, registry, image='tags = ["a", "b"]') as harness:
        for text in ("one", "two"):
            for tag in "ab":
                registry.push(REPOSITORY, tag, sample(tag + text))
                await harness.bring(tag)
        harness.config.write_text(harness.config.read_text().replace('["a", "b"]', '["a"]'))
        harness.services.live.reload()
        would = await reap(harness, dry_run=True)
        assert [template.reference.tag for template in would.gone] == ["b", "b"]
        assert len(harness.services.ledger.conditions.all()) == 2
        await reap(harness)
        assert names(harness) == ["a", "a"]
        assert list(statuses(harness)) == ["a"]


async def test_on_demand(tmp_path: Path, registry: Registry) -> None:
    """What never was watched, but pulled on demand, is not gone."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "demanded", sample())
        await harness.bring("demanded")
        assert (await reap(harness)).gone == ()
        assert names(harness) == ["demanded"]


async def test_older_than(tmp_path: Path, registry: Registry) -> None:
    """Only what has been gone for long enough is deleted."""
    async with Harness(tmp_path, registry, image='tags = ["old"]') as harness:
        await filled(harness, registry, "old")
        aged(harness, 29)
        assert (await reap(harness, MONTH)).gone == ()
        aged(harness, 31)
        assert len((await reap(harness, MONTH)).gone) == 1


async def test_pinned(tmp_path: Path, registry: Registry) -> None:
    """A pinned template stays, which is told, and status goes on to tell of it."""
    async with Harness(tmp_path, registry, image='tags = ["old"]') as harness:
        await filled(harness, registry, "old")
        (template,) = harness.services.ledger.templates()
        harness.services.ledger.pin(template.volumes[0], pinned=True)
        reaped = await reap(harness)
        assert (reaped.gone, [spared.name for spared in reaped.spared]) == ((), [template.name])
        assert names(harness) == ["old"]
        assert statuses(harness) == {"old": Status.ABSENT}


async def test_an_unreachable_registry(tmp_path: Path, registry: Registry) -> None:
    """A registry that gives no list of tags costs no template, and that is told."""
    async with Harness(tmp_path, registry, image='tags = ["old"]') as harness:
        await filled(harness, registry, "old")
        registry.faults.refusals = [DENIED] * 9
        reaped = await reap(harness)
        assert reaped.gone == ()
        assert "may not be gone: registry" in reaped.warnings[0]
        assert names(harness) == ["old"]
        assert statuses(harness) == {"old": Status.ABSENT}


@pytest.mark.parametrize("tags", ['tags = ["old"]', 'tags = ["re:."]'])
async def test_a_hiccup_of_the_registry(tags: str, tmp_path: Path, registry: Registry) -> None:
    """A registry that could not be asked for a while moves no tag's time of being gone."""
    async with Harness(tmp_path, registry, image=tags) as harness:
        await filled(harness, registry, "old")
        aged(harness, 31)
        registry.faults.refusals = [DENIED] * 9
        await harness.services.sweep.look()
        registry.faults.refusals = []
        await harness.services.sweep.look()
        assert [template.reference.tag for template in (await reap(harness, MONTH)).gone] == ["old"]


async def test_a_tag_that_is_back(tmp_path: Path, registry: Registry) -> None:
    """A tag that came back since the last look is not deleted."""
    async with Harness(tmp_path, registry, image='tags = ["old"]') as harness:
        await filled(harness, registry, "old")
        registry.push(REPOSITORY, "old", sample("old"))
        assert await reap(harness) == Retained()
        assert names(harness) == ["old"]


async def test_a_file_of_two_tags(tmp_path: Path, registry: Registry) -> None:
    """A file that another tag means stays; the lost tag is forgotten all the same."""
    lines = 'tags = ["old", "new"]\nname = "{image}_{config12}"'
    async with Harness(tmp_path, registry, image=lines) as harness:
        for tag in ("old", "new"):
            registry.push(REPOSITORY, tag, sample())
            await harness.bring(tag)
        registry.untag(REPOSITORY, "old")
        await harness.services.sweep.look()
        assert (await reap(harness)).gone == ()
        assert len(harness.templates) == 1
        assert statuses(harness) == {"new": Status.OK}


async def test_in_use(tmp_path: Path, registry: Registry) -> None:
    """A template that a container is being made from stays for now."""
    async with Harness(tmp_path, registry, image='tags = ["old"]') as harness:
        await filled(harness, registry, "old")
        (template,) = harness.services.ledger.templates()
        with harness.services.engine.sparing(template.volumes):
            assert (await reap(harness)).gone == ()
        assert len((await reap(harness)).gone) == 1


async def test_a_target_that_is_gone(tmp_path: Path, registry: Registry) -> None:
    """Templates in a target that is not configured any more cannot be deleted, and that is told."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await harness.bring()
        harness.config.write_text(harness.config.read_text().replace('"local"', '"other"'))
        harness.services.live.reload()
        reaped = await reap(harness)
        assert "there is no [[target]] 'local' any more" in reaped.warnings[0]
        assert names(harness) == ["latest"]


@pytest.mark.parametrize(
    ("gone", "tags", "days", "left"),
    [
        ('gone = "30d"', '["re:."]', 31, []),
        ('gone = "30d"', '["re:."]', 29, ["old"]),
        ('gone = "off"', '["re:."]', 999, ["old"]),
        ("", '["re:."]', 999, ["old"]),
        ('gone = "30d"', '["re:.", "old"]', 999, ["old"]),
    ],
    ids=["reaped", "too new", "off", "default", "given by name"],
)
async def test_by_itself(
    *, gone: str, tags: str, days: int, left: list[str], tmp_path: Path, registry: Registry
) -> None:
    """A sweep reaps tags that came by a pattern, after the time that the image names."""
    async with Harness(tmp_path, registry, image=f"tags = {tags}\n{gone}") as harness:
        await filled(harness, registry, "old")
        aged(harness, days)
        await harness.services.worker.stop()
        await Schedule(harness.services).sweep()
        assert names(harness) == left


@pytest.mark.parametrize(
    ("before", "after"), [('"re:."', '"re:x"'), ('targets = ["local"]', 'targets = ["second"]')]
)
async def test_what_is_not_watched_is_not_reaped_by_itself(
    before: str, after: str, tmp_path: Path, registry: Registry
) -> None:
    """What is struck from the configuration by mistake costs no template."""
    lines = 'tags = ["re:."]\ngone = "1s"\ntargets = ["local"]'
    second = f'[[target]]\nname = "second"\ntype = "directory"\npath = "{tmp_path}/second"\n'
    async with Harness(tmp_path, registry, image=lines, more=second) as harness:
        await filled(harness, registry, "old", "new")
        registry.push(REPOSITORY, "other", sample("other"))
        registry.untag(REPOSITORY, "new")
        harness.config.write_text(harness.config.read_text().replace(before, after))
        harness.services.live.reload()
        await harness.services.sweep.unknown()
        aged(harness, 999)
        await harness.services.worker.stop()
        await Schedule(harness.services).sweep()
        assert names(harness) == ["new", "old"]


async def test_a_look_beside_it(tmp_path: Path, registry: Registry) -> None:
    """A condition that another look has mended meanwhile is not struck."""
    async with Harness(tmp_path, registry) as harness:
        rows, place = harness.services.ledger.conditions, Place(harness.latest, "local")
        rows.write(
            [(place, Gone(Lack.TAG, "")), (place, Current(Digest.of(b"x"), ()))], datetime.now(UTC)
        )
        rows.forget_gone(place)
        assert statuses(harness) == {"latest": Status.OK}
