"""What `recorder` promises: every way to a watched tag ends by writing what is true of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from syncd.errors import SyncdError
from syncd.oci import Reference
from syncd.service.schedule import Schedule
from syncd.sync.conditions import Condition, Lack, Place, Status
from syncd.sync.job import ATTEMPTS_MAX, Cause, SyncJob
from tests.deliveries import pushed
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample

DOWN = (503, {"Retry-After": "0"}, b"")
DENIED: tuple[int, dict[str, str], bytes] = (
    403,
    {},
    b'{"errors": [{"code": "DENIED", "message": "no"}]}',
)
SECOND = '[[target]]\nname = "second"\ntype = "directory"\npath = "{}/second"\n'


def rows(harness: Harness) -> dict[tuple[str | None, str], Condition]:
    """Return the conditions by tag and target."""
    found = harness.services.ledger.conditions.all()
    return {(row.place.reference.tag, row.place.target): row for row in found}


def only(harness: Harness) -> Condition:
    """Return the one condition."""
    (row,) = harness.services.ledger.conditions.all()
    return row


async def worked_off(harness: Harness, *references: Reference) -> None:
    """Let jobs look at references, whatever comes of it."""
    worker = harness.services.worker
    for job in await worker.submit(references, Cause.API):
        await worker.finished(job)


async def sweep(harness: Harness) -> None:
    await Schedule(harness.services).sweep()
    async with asyncio.timeout(20):
        while harness.services.worker.busy:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


async def delivery(harness: Harness) -> None:
    body = json.dumps(pushed(str(harness.repository))).encode()
    _, answer = await harness.deliver(body, delivery=uuid.uuid4().hex)
    for job in answer["jobs"]:
        await harness.outcome(job)


async def api(harness: Harness) -> None:
    answer = await (await harness.ask("POST", "/api/v1/sync")).json()
    for job in answer["jobs"]:
        await harness.outcome(job["id"])


async def weekly(harness: Harness) -> None:
    await Schedule(harness.services).everything(Cause.SCHEDULE)
    await harness.outcome(harness.services.ledger.jobs(1)[0].job.id)


async def resolved(harness: Harness) -> None:
    await harness.ask("GET", "/api/v1/resolve", params={"ref": str(harness.latest), "pull": "1"})


WAYS = [sweep, delivery, api, weekly, resolved]


@pytest.mark.parametrize("way", WAYS)
async def test_every_way(
    way: Callable[[Harness], Awaitable[None]], tmp_path: Path, registry: Registry
) -> None:
    """Each way to a tag writes a failure, and then that the failure is over."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", content := sample())
        registry.faults.refusals = [DENIED] * 4
        await way(harness)
        failing = only(harness)
        assert failing.status is Status.FAILING
        assert "denies" in failing.reason
        assert not failing.passing
        assert failing.volumes == ()
        registry.faults.refusals = []
        await way(harness)
        fine = only(harness)
        assert fine.place == Place(harness.latest, "local")
        assert (fine.status, fine.tries, fine.reason) == (Status.OK, 0, "")
        assert str(fine.digest) == content.digest
        assert fine.volumes == (f"local:vztmpl/{harness.templates[0].name}",)
        assert fine.updated is not None
        assert fine.updated == fine.checked == fine.since > failing.checked


async def test_unchanged(tmp_path: Path, registry: Registry) -> None:
    """A look that finds nothing to do is written, too, and keeps since when the tag is ok."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await worked_off(harness, harness.latest)
        before = only(harness)
        for look in (sweep, api):
            await look(harness)
            after = only(harness)
            assert (after.status, after.since) == (Status.OK, before.since)
            assert after.checked > before.checked
            before = after


async def test_passing(tmp_path: Path, registry: Registry) -> None:
    """Whether a failure may pass is in the condition, and when it is tried again."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        registry.faults.refusals = [DOWN] * 20
        await worked_off(harness, harness.latest)
        assert only(harness).passing
        assert only(harness).next_try is not None


async def test_what_is_not_watched(tmp_path: Path, registry: Registry) -> None:
    """A reference that nobody watches has no condition, by tag or by digest."""
    async with Harness(tmp_path, registry) as harness:
        content = sample()
        registry.push(REPOSITORY, "other", content)
        by_digest = Reference.parse(f"{harness.latest}@{content.digest}")
        await worked_off(harness, harness.repository.with_tag("other"), by_digest)
        assert harness.services.ledger.templates()
        assert rows(harness) == {}


async def test_two_targets_fail(tmp_path: Path, registry: Registry) -> None:
    """Of two targets that fail, each says its own reason."""
    async with Harness(tmp_path, registry, more=SECOND.format(tmp_path)) as harness:
        registry.push(REPOSITORY, "latest", sample())
        for name in ("second", "storage"):
            (tmp_path / name).write_text("a file, and no folder")
        await worked_off(harness, harness.latest)
        assert "/second/" in rows(harness)["latest", "second"].reason
        assert "/storage/" not in rows(harness)["latest", "second"].reason


async def test_one_target_fails(tmp_path: Path, registry: Registry) -> None:
    """Each target has a condition of its own."""
    async with Harness(tmp_path, registry, more=SECOND.format(tmp_path)) as harness:
        registry.push(REPOSITORY, "latest", sample())
        (tmp_path / "second").write_text("a file, and no folder")
        for look in (api, sweep):
            await look(harness)
            found = rows(harness)
            assert found["latest", "local"].status is Status.OK
            assert found["latest", "second"].status is Status.FAILING
            assert str(tmp_path / "second") in found["latest", "second"].reason
        (tmp_path / "second").unlink()
        await sweep(harness)
        assert {row.status for row in rows(harness).values()} == {Status.OK}


async def test_a_fault_in_syncd(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ends by a fault in syncd leaves a failure, too."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        monkeypatch.setattr("syncd.sync.lookup.read_image", lambda *_: 1 / 0)
        await worked_off(harness, harness.latest)
        assert "fault in syncd" in only(harness).reason


async def test_a_tag_that_is_gone(tmp_path: Path, registry: Registry) -> None:
    """A tag that the registry does not list is absent, also while the registry cannot be asked."""
    async with Harness(tmp_path, registry, image='tags = ["latest", "main"]') as harness:
        for tag in ("latest", "main"):
            registry.push(REPOSITORY, tag, sample(tag))
        await sweep(harness)
        registry.untag(REPOSITORY, "main")
        await sweep(harness)
        gone = rows(harness)["main", "local"]
        assert (gone.status, gone.lack, len(gone.volumes)) == (Status.ABSENT, Lack.TAG, 1)
        assert rows(harness)["latest", "local"].status is Status.OK
        registry.faults.refusals = [DENIED] * 20
        await sweep(harness)
        registry.faults.refusals = []
        assert rows(harness)["main", "local"] == gone
        assert rows(harness)["latest", "local"].status is Status.FAILING


async def test_a_tag_that_is_back_and_cannot_be_fetched(tmp_path: Path, registry: Registry) -> None:
    """A tag that the registry has again is not absent any more, also where its image fails."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await sweep(harness)
        registry.untag(REPOSITORY, "latest")
        await sweep(harness)
        assert only(harness).lack is Lack.TAG
        content = sample("back")
        registry.push(REPOSITORY, "latest", content)
        registry.replace_blob(content.document["layers"][1]["digest"], None)
        await sweep(harness)
        assert only(harness).status is Status.FAILING


@pytest.mark.parametrize("way", [sweep, api])
async def test_tags_of_a_pattern(
    way: Callable[[Harness], Awaitable[None]], tmp_path: Path, registry: Registry
) -> None:
    """A tag that came by a pattern and is not listed any more is absent."""
    async with Harness(tmp_path, registry, image='tags = ["re:^v"]') as harness:
        for tag in ("v1", "v2"):
            registry.push(REPOSITORY, tag, sample(tag))
        await way(harness)
        registry.untag(REPOSITORY, "v1")
        await way(harness)
        assert rows(harness)["v1", "local"].lack is Lack.TAG
        assert rows(harness)["v2", "local"].status is Status.OK


@pytest.mark.parametrize("way", [sweep, api])
async def test_a_list_that_cannot_be_read(
    way: Callable[[Harness], Awaitable[None]], tmp_path: Path, registry: Registry
) -> None:
    """A list of tags that cannot be read is a failure of each tag that it named before."""
    async with Harness(tmp_path, registry, image='tags = ["re:^v"]') as harness:
        for tag in ("v1", "v2"):
            registry.push(REPOSITORY, tag, sample(tag))
        await way(harness)
        registry.faults.refusals = [DENIED] * 4
        await way(harness)
        assert {key: row.status for key, row in rows(harness).items()} == {
            ("v1", "local"): Status.FAILING,
            ("v2", "local"): Status.FAILING,
        }
        registry.faults.refusals = []
        await way(harness)
        assert {row.status for row in rows(harness).values()} == {Status.OK}


@pytest.mark.parametrize("way", [sweep, api])
async def test_a_list_that_named_nothing_else(
    way: Callable[[Harness], Awaitable[None]], tmp_path: Path, registry: Registry
) -> None:
    """What a list was found to lack or to pass over stays so, since then, while it is not read."""
    async with Harness(tmp_path, registry, image='tags = ["newest:1"]') as harness:
        for tag in ("1.1.0", "1.2.0", "1.3.0"):
            registry.push(REPOSITORY, tag, sample(tag))
            await way(harness)
        registry.untag(REPOSITORY, "1.1.0")
        await way(harness)
        known = rows(harness)
        assert (known["1.1.0", "local"].lack, known["1.2.0", "local"].lack) == (
            Lack.TAG,
            Lack.WATCH,
        )
        registry.faults.refusals = [DENIED] * 4
        await way(harness)
        now = rows(harness)
        assert now.pop(("1.3.0", "local")).status is Status.FAILING
        assert now == {key: row for key, row in known.items() if key in now}
        registry.faults.refusals = []
        registry.untag(REPOSITORY, "1.2.0")
        registry.untag(REPOSITORY, "1.3.0")
        await way(harness)
        registry.faults.refusals = [DENIED] * 4
        await way(harness)
        own = rows(harness)[None, "local"]
        assert (own.status, own.place.reference) == (Status.FAILING, harness.repository)
        assert {row.lack for key, row in rows(harness).items() if key[0]} == {Lack.TAG}


@pytest.mark.parametrize("way", [sweep, api])
async def test_a_list_that_never_could_be_read(
    way: Callable[[Harness], Awaitable[None]], tmp_path: Path, registry: Registry
) -> None:
    """Where no tag is known yet, the failure is the repository's, until its list is read."""
    async with Harness(tmp_path, registry, image='tags = ["re:^v"]') as harness:
        registry.push(REPOSITORY, "v1", sample())
        registry.faults.refusals = [DENIED] * 4
        await way(harness)
        assert only(harness).place == Place(harness.repository, "local")
        assert only(harness).status is Status.FAILING
        registry.faults.refusals = []
        await way(harness)
        assert only(harness).place.reference.tag == "v1"


async def test_the_tags_given_by_name_are_swept(tmp_path: Path, registry: Registry) -> None:
    """A sweep looks at the tags given by name though the list of the others cannot be read."""
    async with Harness(tmp_path, registry, image='tags = ["latest", "re:^v"]') as harness:
        registry.push(REPOSITORY, "latest", sample())
        registry.push(REPOSITORY, "v1", sample("v1"))
        await sweep(harness)
        registry.faults.refusals = [DENIED] * 4
        tags = harness.services.engine.tags
        listing = await tags.watched(harness.repository)
        registry.faults.refusals = []
        assert [tag.tag for tag in listing.tags] == ["latest"]
        assert listing.fault is not None
        found = rows(harness)
        assert found["v1", "local"].status is Status.FAILING
        assert found["latest", "local"].status is Status.OK
        registry.faults.refusals = [DENIED] * 4
        with pytest.raises(SyncdError):
            await tags.all_watched(harness.repository)
        assert rows(harness)["latest", "local"].status is Status.FAILING


async def test_a_file_deleted_by_hand(tmp_path: Path, registry: Registry) -> None:
    """A sweep tells that a template's file is gone, and brings it back."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await sweep(harness)
        (path,) = harness.templates
        path.unlink()
        stale = (await harness.services.sweep.look()).stale
        assert stale == [harness.latest]
        assert (only(harness).status, only(harness).lack) == (Status.ABSENT, Lack.FILE)
        await sweep(harness)
        assert harness.templates == [path]
        assert only(harness).status is Status.OK


async def test_an_unmounted_disk(tmp_path: Path, registry: Registry) -> None:
    """A target whose disk is not mounted is failing, and nothing is written below."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await sweep(harness)
        (tmp_path / "storage").rename(tmp_path / "unmounted")
        (tmp_path / "storage").mkdir()
        for look in (sweep, api):
            await look(harness)
            assert (only(harness).status, only(harness).passing) == (Status.FAILING, True)
            assert "mount its disk" in only(harness).reason
        assert harness.templates == []
        (tmp_path / "storage").rmdir()
        (tmp_path / "unmounted").rename(tmp_path / "storage")
        await sweep(harness)
        assert only(harness).status is Status.OK


async def test_a_job_that_was_given_up(tmp_path: Path, registry: Registry) -> None:
    """A tag that the daemon died of is failing; only who asks for it has it tried again."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        ledger = harness.services.ledger
        ledger.accept([job := SyncJob(harness.latest, Cause.WEBHOOK)])
        for _ in range(ATTEMPTS_MAX):
            ledger.start(job.id)
        await harness.services.worker.resume()
        assert only(harness).status is Status.FAILING
        assert "the daemon died" in only(harness).reason
        assert not only(harness).passing
        await sweep(harness)
        await Schedule(harness.services).unknown()
        assert len(ledger.jobs(9)) == 1
        await worked_off(harness, harness.latest)
        assert only(harness).status is Status.OK


async def test_retention_spares_what_is_current(tmp_path: Path, registry: Registry) -> None:
    """The version that a condition names is kept, though the ledger has newer ones."""
    async with Harness(tmp_path, registry, image="keep = 1") as harness:
        registry.push(REPOSITORY, "latest", sample("one"))
        await worked_off(harness, harness.latest)
        ledger = harness.services.ledger
        (one,) = ledger.templates()
        registry.push(REPOSITORY, "latest", sample("two"))
        shutil.copytree(tmp_path / "storage", tmp_path / "kept")
        await worked_off(harness, harness.latest)
        (two,) = ledger.templates()
        shutil.copytree(tmp_path / "kept", tmp_path / "storage", dirs_exist_ok=True)
        ledger.record(one)  # now the ledger has `one` as the newest, and the tag means `two`
        assert [row.name for row in ledger.templates()] == [one.name, two.name]
        retained = await harness.services.engine.retain(harness.latest)
        assert retained.gone == ()
        assert only(harness).volumes == two.volumes
        assert len(harness.templates) == 2
