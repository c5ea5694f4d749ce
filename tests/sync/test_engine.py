"""What `sync` promises: whole jobs, from a registry to a folder, however they end."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest
from structlog.testing import capture_logs

from syncd.errors import PublishError, StoppedError, TargetUnavailableError
from syncd.oci.reference import Digest, Reference
from syncd.progress import Advance, Silence
from syncd.sync.conditions import Current, Missing, Status
from syncd.sync.job import Cause, LayerBytes, Outcome, Result, SyncJob
from tests.archives import file
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.images import Content, image, index, layer, layer_of
from tests.templates import read

SECOND = '[[target]]\nname = "second"\ntype = "directory"\npath = "{}/second"\n'


async def bring(harness: Harness, tag: str = "latest") -> Outcome:
    """Bring one tag up to date."""
    return await harness.bring(tag)


def again(outcome: Outcome) -> Outcome:
    """Return an outcome but for the bytes of layers, which are fetched once."""
    return replace(outcome, layers=LayerBytes())


async def job(harness: Harness, reference: Reference | None = None) -> Outcome:
    """Let the worker do a job, faults and all."""
    worker = harness.services.worker
    (submitted,) = await worker.submit([reference or harness.latest], Cause.API)
    return await worker.finished(submitted)


def layers_of(*contents: Content) -> list[str]:
    """Return the digests of layers."""
    return [one["digest"] for content in contents for one in content.document["layers"]]


async def test_published(tmp_path: Path, registry: Registry) -> None:
    """A new image is a template under the web UI's name, with its provenance in the ledger."""
    async with Harness(tmp_path, registry) as harness:
        one = sample()
        content = index(one, image(layer(), platform="linux/arm64"), attestation=True)
        registry.push(REPOSITORY, "latest", content)
        outcome = await bring(harness)
        (path,) = harness.templates
        config = one.document["config"]["digest"].removeprefix("sha256:")[:12]
        host = registry.address.replace(":", "_")
        assert path.name == f"{host}_org_repo_image_latest_{config}.tar.zst"
        assert outcome == Outcome(
            Result.PUBLISHED,
            f"{content.digest} is published",
            (f"local:vztmpl/{path.name}",),
            layers=LayerBytes(fetched=sum(each["size"] for each in one.document["layers"])),
        )
        assert {entry.name: entry.content for entry in read(path)}[b"./text"] == b"one"
        (template,) = harness.services.ledger.templates()
        assert (template.reference, template.target) == (harness.latest, "local")
        assert (str(template.digest), str(template.manifest_digest)) == (content.digest, one.digest)
        assert str(template.config_digest) == one.document["config"]["digest"]
        assert len(template.diff_ids) == 2
        assert template.file_digest == Digest.of(path.read_bytes())
        assert template.size == path.stat().st_size
        assert template.volumes == outcome.volumes
        assert harness.spool == []


async def test_unchanged(tmp_path: Path, registry: Registry) -> None:
    """What is published already costs one HEAD, and nothing more is read."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", content := sample())
        first = await bring(harness)
        registry.requests.clear()
        outcome = await bring(harness)
        assert outcome == Outcome(
            Result.UNCHANGED, f"{content.digest} is published already", first.volumes
        )
        assert [method for method, _ in registry.requests] == ["HEAD"]


async def test_a_lost_file_is_made_again(tmp_path: Path, registry: Registry) -> None:
    """A template that is gone from the target is made again, from what is cached."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        first = await bring(harness)
        (path,) = harness.templates
        content = path.read_bytes()
        path.unlink()
        registry.requests.clear()
        assert again(await bring(harness)) == again(first)
        assert path.read_bytes() == content
        assert not set(registry.fetched()) & set(layers_of(sample()))


async def test_a_cut_file_is_published_anew(tmp_path: Path, registry: Registry) -> None:
    """A template of syncd's own that was cut is neither taken for good nor left: it is replaced."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        first = await bring(harness)
        assert harness.services.ledger.pin(first.volumes[0], pinned=True)
        (path,) = harness.templates
        content = path.read_bytes()
        os.truncate(path, 10)
        assert not (await harness.services.engine.find(harness.latest)).volumes
        assert again(await bring(harness)) == again(first)
        assert path.read_bytes() == content
        assert [template.pinned for template in harness.services.ledger.templates()] == [True]
        assert (await bring(harness)).result is Result.UNCHANGED


async def foreign(harness: Harness, change: Callable[[bytes], bytes]) -> Path:
    """Publish the image, and put what `change` makes of the file in its place.

    The ledger and the cache know nothing of either file afterwards.
    """
    await bring(harness)
    (path,) = harness.templates
    changed = change(path.read_bytes())
    path.unlink()
    path.write_bytes(changed)
    with closing(sqlite3.connect(harness.folder / "state" / "ledger.sqlite")) as db, db:
        db.execute("DELETE FROM templates")
        db.execute("DELETE FROM proofs")
    for kept in (harness.folder / "state" / "made").iterdir():
        kept.unlink()
    return path


async def test_a_foreign_file_is_proven(tmp_path: Path, registry: Registry) -> None:
    """A file that another syncd put there counts once a conversion gave the same bytes."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        path = await foreign(harness, lambda content: content)
        before = (path.stat().st_ino, path.stat().st_mtime_ns)
        engine, ledger = harness.services.engine, harness.services.ledger
        assert not (await engine.find(harness.latest)).everywhere
        outcome = await bring(harness)
        assert (outcome.result, len(outcome.volumes)) == (Result.UNCHANGED, 1)
        assert (await engine.find(harness.latest)).volumes == outcome.volumes
        assert ledger.templates() == []
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
        for kept in (harness.folder / "state" / "made").iterdir():
            kept.unlink()
        assert again(await bring(harness)) == again(outcome)
        assert list((harness.folder / "state" / "made").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content[:20], "another size"),
        (lambda content: b"x" * len(content), "other bytes of the same size"),
        (lambda content: content + b"x", "another size"),
    ],
)
async def test_a_foreign_file_in_the_way(
    tmp_path: Path, registry: Registry, change: Callable[[bytes], bytes], told: str
) -> None:
    """A file that somebody else put there and that is not the image's never counts.

    The job tells what to do, the file stays as it is, and no container is made from it.
    """
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        path = await foreign(harness, change)
        content = path.read_bytes()
        for _ in range(2):
            with pytest.raises(PublishError, match=f"{told}.*never overwrites.*remove it"):
                await bring(harness)
            assert path.read_bytes() == content
            assert harness.services.ledger.templates() == []
            assert not (await harness.services.engine.find(harness.latest)).everywhere
        path.unlink()
        assert (await bring(harness)).result is Result.PUBLISHED
        assert read(path)


async def test_changed(tmp_path: Path, registry: Registry) -> None:
    """A tag that moved is a second template; only the layers that are new are fetched."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", one := sample("one"))
        await bring(harness)
        registry.requests.clear()
        registry.push(REPOSITORY, "latest", two := sample("two"))
        assert (await bring(harness)).result is Result.PUBLISHED
        assert len(harness.templates) == 2
        new = set(layers_of(two)) - set(layers_of(one))
        assert set(registry.fetched()) & set(layers_of(one, two)) == new


async def test_retention(tmp_path: Path, registry: Registry) -> None:
    """Of each tag the newest versions stay; other tags, other files and pinned ones are spared."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "stable", sample("stable"))
        stable = await bring(harness, "stable")
        foreign = harness.templates[0].with_name("somebody-elses.tar.zst")
        foreign.touch()
        volumes: list[str] = []
        for number in range(4):
            registry.push(REPOSITORY, "latest", sample(str(number)))
            outcome = await bring(harness)
            volumes += outcome.volumes
            if number == 0:
                (template,) = harness.services.ledger.templates(harness.latest)
                harness.services.ledger.record(replace(template, pinned=True))
        stay = {*stable.volumes, volumes[0], *volumes[2:], f"local:vztmpl/{foreign.name}"}
        assert {f"local:vztmpl/{path.name}" for path in harness.templates} == stay
        assert {one.volumes[0] for one in harness.services.ledger.templates(harness.latest)} == {
            volumes[0],
            *volumes[2:],
        }


async def test_a_tag_that_went_back(tmp_path: Path, registry: Registry) -> None:
    """What a tag means now is its newest version, also if it was published before another."""
    async with Harness(tmp_path, registry) as harness:
        for text in ("one", "two", "one"):
            registry.push(REPOSITORY, "latest", sample(text))
            outcome = await bring(harness)
        assert outcome.result is Result.UNCHANGED
        registry.push(REPOSITORY, "latest", sample("three"))
        newest = await bring(harness)
        assert {f"local:vztmpl/{path.name}" for path in harness.templates} == {
            *outcome.volumes,
            *newest.volumes,
        }


async def test_a_clock_that_stepped_back(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention keeps what the tag means now, though the clock stepped back two days before it."""
    async with Harness(tmp_path, registry, image="keep = 1") as harness:
        registry.push(REPOSITORY, "latest", sample("one"))
        await bring(harness)

        class Earlier(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return super().now(tz) - timedelta(days=2)

        monkeypatch.setattr("syncd.sync.publisher.datetime", Earlier)
        registry.push(REPOSITORY, "latest", sample("two"))
        newest = await bring(harness)
        assert [f"local:vztmpl/{path.name}" for path in harness.templates] == [*newest.volumes]
        assert (await bring(harness)).result is Result.UNCHANGED


async def test_prune_dry_run(tmp_path: Path, registry: Registry) -> None:
    """A dry run of retention names what would go, and deletes nothing."""
    async with Harness(tmp_path, registry) as harness:
        for text in ("one", "two"):
            registry.push(REPOSITORY, "latest", sample(text))
            await bring(harness)
        engine = harness.services.engine
        (image,) = harness.services.live.config.image
        harness.configure(image=(image.model_copy(update={"keep": 1}),))
        before = harness.templates
        would = await engine.retain(harness.latest, dry_run=True)
        assert len(would.gone) == 1
        assert harness.templates == before
        assert await engine.retain(harness.latest) == would
        assert len(harness.templates) == 1


async def test_kept_off(tmp_path: Path, registry: Registry) -> None:
    """Retention leaves what is pinned and what is in use, for as long as it is so."""
    async with Harness(tmp_path, registry, image="keep = 1") as harness:
        registry.push(REPOSITORY, "latest", sample("one"))
        first = (await bring(harness)).volumes
        engine, ledger = harness.services.engine, harness.services.ledger
        registry.push(REPOSITORY, "latest", sample("two"))
        with engine.sparing(first):
            await bring(harness)
            assert len(harness.templates) == 2
        assert ledger.pin(first[0], pinned=True)
        assert (await engine.retain(harness.latest)).gone == ()
        assert ledger.pin(first[0], pinned=False)
        assert [one.volumes for one in (await engine.retain(harness.latest)).gone] == [first]
        assert not ledger.pin(first[0], pinned=True)


async def test_a_refused_deletion_is_no_failure(tmp_path: Path, registry: Registry) -> None:
    """A version that cannot be deleted stays in the ledger for the next time."""
    async with Harness(tmp_path, registry, image="keep = 1") as harness:
        registry.push(REPOSITORY, "latest", sample("one"))
        await bring(harness)
        (old,) = harness.templates
        registry.push(REPOSITORY, "latest", sample("two"))
        local = harness.services.live.targets["local"]

        def refuse(volume: object) -> None:
            raise PublishError("no")

        local.delete, delete = refuse, local.delete  # type: ignore[method-assign] # a disk that refuses
        outcome = await bring(harness)
        assert outcome.result is Result.PUBLISHED
        assert outcome.warnings == (f"local:vztmpl/{old.name} was not deleted: no",)
        assert len(harness.services.ledger.templates()) == 2
        local.delete = delete  # type: ignore[method-assign] # it takes it again
        await harness.services.engine.retain(harness.latest)
        assert len(harness.templates) == 1
        assert old not in harness.templates


async def test_two_tags_of_one_image(tmp_path: Path, registry: Registry) -> None:
    """A second tag of an image costs no blob, and its file has the same bytes."""
    async with Harness(tmp_path, registry) as harness:
        for tag in ("latest", "v1"):
            registry.push(REPOSITORY, tag, sample())
        await bring(harness)
        registry.requests.clear()
        assert (await bring(harness, "v1")).result is Result.PUBLISHED
        assert not set(registry.fetched()) & set(layers_of(sample()))
        first, second = harness.templates
        assert first.read_bytes() == second.read_bytes()
        assert not first.samefile(second)


async def test_one_conversion_for_two_tags(tmp_path: Path, registry: Registry) -> None:
    """An image is converted once for all its tags, though no target can give the file back."""
    steps: list[str] = []

    class Steps:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            steps.append(step)
            return lambda _: None

    async with Harness(tmp_path, registry, lambda _: Steps()) as harness:
        for tag in ("latest", "v1"):
            registry.push(REPOSITORY, tag, sample())
        await bring(harness)
        (first,) = harness.templates
        content = first.read_bytes()
        first.unlink()
        await bring(harness, "v1")
        (second,) = harness.templates
        assert second.read_bytes() == content
        assert steps.count("flatten") == 1


async def test_only_what_is_pulled(tmp_path: Path, registry: Registry) -> None:
    """A layer is told as pulled where a registry is asked; one of the cache is told as read."""
    steps: list[str] = []

    class Steps:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            if step not in ("flatten", "publish"):
                steps.append(step)
            return lambda _: None

    async with Harness(tmp_path, registry, lambda _: Steps()) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await bring(harness)
        assert steps == ["layer", "layer"]
        steps.clear()
        # The first layer is the same, and lies unpacked; the second is new.
        registry.push(REPOSITORY, "latest", sample("two"))
        await bring(harness)
        assert steps == ["layer"]
        steps.clear()
        paths = harness.services.live.config.state.paths
        shutil.rmtree(paths.layers)
        shutil.rmtree(paths.templates)
        (first, second) = harness.templates
        for file in (first, second):
            file.unlink()
        await bring(harness)
        assert steps == ["cached", "cached"]


async def test_one_file_for_two_tags(tmp_path: Path, registry: Registry) -> None:
    """A name without tag is one file; it goes only when no tag means it any more."""
    pattern = 'name = "{image}_{config12}"\nkeep = 1\ntags = ["a", "b"]'
    async with Harness(tmp_path, registry, image=pattern) as harness:
        for tag in ("a", "b"):
            registry.push(REPOSITORY, tag, sample("one"))
        assert (await bring(harness, "a")).result is Result.PUBLISHED
        assert (await bring(harness, "b")).result is Result.UNCHANGED
        assert (await bring(harness, "b")).message.endswith("already")
        (one,) = harness.templates
        for tag, left in (("a", 2), ("b", 1)):
            registry.push(REPOSITORY, tag, sample("two"))
            await bring(harness, tag)
            assert len(harness.templates) == left
        assert one not in harness.templates


async def test_several_targets(tmp_path: Path, registry: Registry) -> None:
    """Every target gets it; one that fails keeps no other waiting, and is made up later."""
    more = SECOND.format(tmp_path)
    (tmp_path / "second").touch()
    async with Harness(tmp_path, registry, more=more) as harness:
        registry.push(REPOSITORY, "latest", sample())
        outcome = await job(harness)
        assert outcome.result is Result.FAILED
        assert f"{tmp_path}/second/template/cache cannot be listed" in outcome.message
        assert len(harness.templates) == 1
        (tmp_path / "second").unlink()
        outcome = await job(harness)
        assert outcome.result is Result.PUBLISHED
        assert {volume.partition(":")[0] for volume in outcome.volumes} == {"local", "second"}
        assert (await job(harness)).result is Result.UNCHANGED


CLUSTER = """\
[[target]]
name = "cluster"
type = "proxmox"
endpoints = ["https://127.0.0.1:1"]
token_id = "u@pve!t"
token_secret_file = "{}/api-token"
"""


async def test_a_target_that_is_down(tmp_path: Path, registry: Registry) -> None:
    """A target that cannot even tell its format keeps no other waiting."""
    first = 'targets = ["cluster", "local"]'
    async with Harness(tmp_path, registry, image=first, more=CLUSTER.format(tmp_path)) as harness:
        registry.push(REPOSITORY, "latest", sample())
        outcome = await job(harness)
        assert outcome.result is Result.FAILED
        assert "127.0.0.1:1" in outcome.message
        assert len(harness.templates) == 1


async def test_chosen_targets(tmp_path: Path, registry: Registry) -> None:
    """An image goes to the targets it names, and to no other."""
    more, only = SECOND.format(tmp_path), 'targets = ["second"]'
    async with Harness(tmp_path, registry, image=only, more=more) as harness:
        registry.push(REPOSITORY, "latest", sample())
        (volume,) = (await bring(harness)).volumes
        assert volume.startswith("second:")
        assert harness.templates == []


async def test_no_target(tmp_path: Path, registry: Registry) -> None:
    """Without a target a job says so before the registry is asked."""
    async with Harness(tmp_path, registry) as harness:
        harness.services.live._targets = {}
        with pytest.raises(PublishError, match=r"add a \[\[target\]\]"):
            await bring(harness)
        assert registry.requests == []


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ('["latest", "main"]', ["latest", "main"]),
        ('["re:^v[0-9]$"]', ["v1", "v2"]),
        ('["v2", "re:^v.$"]', ["v2", "v1"]),
        ('["re:^x"]', []),
        ('["semver:>=1.2 <2"]', ["1.2.0", "v1.10.0"]),
        ('["newest:2"]', ["v1.10.0", "2.0.0"]),
        ('["newest:2 by version", "not:^2"]', ["1.2.0", "v1.10.0"]),
        ('["v1", "newest:1"]', ["v1", "2.0.0"]),
        ('["newest:2", "re:latest"]', []),
    ],
)
async def test_watched(tags: str, found: list[str], tmp_path: Path, registry: Registry) -> None:
    """The watched tags are those given by name, and those of the registry that match."""
    async with Harness(tmp_path, registry, image=f"tags = {tags}") as harness:
        for tag in ("latest", "v1", "v2", "v1.10.0", "1.2.0", "2.0.0", "2.1.0-rc.1"):
            registry.push(REPOSITORY, tag, sample())
        watched = await harness.services.engine.watched_tags(harness.repository)
        assert [one.tag for one in watched.tags] == found
        assert watched.warnings == ()
        assert bool(registry.requests) == (":" in tags)
        assert {path.rpartition("/")[2] for _, path in registry.requests} <= {"list"}


async def test_many_tags(tmp_path: Path, registry: Registry) -> None:
    """Of more matching tags than the bound the highest are watched; log and job tell it."""
    more, tags = "[limits]\ntags = 3\n", 'tags = ["old", "re:^v"]'
    async with Harness(tmp_path, registry, image=tags, more=more) as harness:
        for tag in ("old", *(f"v{number}" for number in range(12))):
            registry.push(REPOSITORY, tag, sample())
        with capture_logs() as logs:
            for _ in range(2):
                watched = await harness.services.engine.watched_tags(harness.repository)
                assert [one.tag for one in watched.tags] == ["old", "v9", "v10", "v11"]
        (told,) = [entry for entry in logs if entry["event"] == "tags passed over"]
        assert "12 tags" in told["warning"]
        assert "limits.tags" in told["warning"]
        (job,) = await harness.services.worker.submit([harness.repository], Cause.API)
        outcome = await harness.outcome(job.id)
        assert "12 tags" in outcome.message


class Stop(Silence):
    """Sets the event when a step begins."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.act: Callable[[], None] = lambda: None

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        if step == self.step:
            self.act()
        return super().begin(step, subject, total)


@pytest.mark.parametrize("step", ["layer", "flatten"])
async def test_stopped(step: str, tmp_path: Path, registry: Registry) -> None:
    """A stop ends the work soon; nothing of it is left, and it can be done again."""
    watch = Stop(step)
    async with Harness(tmp_path, registry, lambda _: watch) as harness:
        watch.act = harness.services.stopping.set
        registry.push(REPOSITORY, "latest", sample())
        with pytest.raises(StoppedError):
            await bring(harness)
        assert (harness.templates, harness.spool) == ([], [])
        watch.act = lambda: None
        harness.services.stopping.clear()
        assert (await bring(harness)).result is Result.PUBLISHED


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond this, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_full_disk(tmp_path: Path, registry: Registry) -> None:
    """A full disk fails the job in a sentence; the template before stays, and nothing else."""
    async with Harness(tmp_path, registry) as harness:
        registry.push(REPOSITORY, "latest", sample())
        await bring(harness)
        before = harness.templates
        large = image(layer(file("large", os.urandom(4 << 20))))
        registry.push(REPOSITORY, "latest", large)
        with largest_file(2 << 20):
            outcome = await job(harness)
        assert outcome.result is Result.FAILED
        assert "File too large" in outcome.message
        assert "free space" in outcome.message
        assert (harness.templates, harness.spool) == (before, [])
        assert (await job(harness)).result is Result.PUBLISHED


BAD = sample("bad")
TEXT_LAYER = BAD.document["layers"][1]["digest"]
NO_TAR = image(layer_of(b"this is no tar" * 100))
ARM = index(image(layer(), platform="linux/arm64"))


def truncated(registry: Registry) -> None:
    registry.replace_blob(TEXT_LAYER, BAD.blobs[TEXT_LAYER][:-1])
    registry.faults.ranges = False


FAULTS: dict[str, tuple[Content | None, Callable[[Registry], None], str]] = {
    "unknown": (None, lambda _: None, r"does not have .*/org/repo/image:bad.*check the name"),
    "denied": (BAD, lambda r: setattr(r, "login", ("u", "p")), r"denies .*not found, or no access"),
    "down": (
        BAD,
        lambda r: r.faults.refusals.extend([(503, {}, b"")] * 5),
        r"answers 503 .*the next trigger tries again",
    ),
    "digest": (
        BAD,
        lambda r: r.replace_blob(TEXT_LAYER, bytes(len(BAD.blobs[TEXT_LAYER]))),
        r"sha256:.*(other content|gzip)",
    ),
    "size": (
        BAD,
        lambda r: r.replace_blob(TEXT_LAYER, BAD.blobs[TEXT_LAYER] + b"x"),
        r"sha256:.*more than the \d+ bytes.*push the image again",
    ),
    "short": (BAD, truncated, r"sha256:.*broke off.*check the network"),
    "layer gone": (BAD, lambda r: r.replace_blob(TEXT_LAYER, None), r"does not have .*sha256"),
    "manifest gone": (BAD, lambda r: r.replace_blob(BAD.digest, None), r"does not have .*:bad"),
    "no tar": (NO_TAR, lambda _: None, r"layer sha256:.*"),
    "other platform": (ARM, lambda _: None, r"no manifest for linux/amd64"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_bad_input(name: str, tmp_path: Path, registry: Registry) -> None:
    """What goes wrong fails its job in one sentence; nothing else changes, and syncd goes on."""
    content, spoil, message = FAULTS[name]
    async with Harness(tmp_path, registry) as harness:
        harness.services.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign] # no real waits
        registry.push(REPOSITORY, "latest", sample())
        await bring(harness)
        before = [(path, path.read_bytes()) for path in harness.templates]
        if content:
            registry.push(REPOSITORY, "bad", content)
        spoil(registry)
        outcome = await job(harness, harness.repository.with_tag("bad"))
        assert outcome.result is Result.FAILED
        assert re.search(message, outcome.message)
        assert "fault in syncd" not in outcome.message
        assert "\n" not in outcome.message
        assert [(path, path.read_bytes()) for path in harness.templates] == before
        assert harness.spool == []
        assert len(harness.services.ledger.templates()) == 1
        registry.login = None
        registry.push(REPOSITORY, "good", sample("good"))
        assert (await job(harness, harness.repository.with_tag("good"))).result is Result.PUBLISHED


async def test_look(tmp_path: Path, registry: Registry) -> None:
    """Whether a tag is published as it is now is told by one HEAD, for each target."""
    async with Harness(tmp_path, registry) as harness:
        engine = harness.services.engine
        one, two = sample("one"), sample("two")
        registry.push(REPOSITORY, "latest", one)
        assert await engine.look(harness.latest) == {"local": Missing(Digest.parse(one.digest))}
        outcome = await bring(harness)
        registry.requests.clear()
        current = Current(Digest.parse(one.digest), outcome.volumes)
        assert await engine.look(harness.latest) == {"local": current}
        assert len(registry.requests) == 1
        registry.push(REPOSITORY, "latest", two)
        assert await engine.look(harness.latest) == {"local": Missing(Digest.parse(two.digest))}


async def test_silent_registries_starve_nobody(tmp_path: Path, registry: Registry) -> None:
    """Registries that accept and say nothing keep only their own images waiting."""
    with ExitStack() as stack:
        more = ""
        dead = []
        for _ in range(10):
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            dead.append(Reference.parse(f"{address}/org/dead"))
            tags = ", ".join(f'"t{number}"' for number in range(12))
            more += (
                f'[[registry]]\nhost = "{address}"\nplain_http = true\n'
                f'[[image]]\nrepository = "{address}/org/dead"\ntags = [{tags}]\n'
            )
        async with Harness(tmp_path, registry, more=more) as harness:
            registry.push(REPOSITORY, "latest", sample())
            engine, worker = harness.services.engine, harness.services.worker
            await worker.submit(dead, Cause.SCHEDULE)
            looks = [
                asyncio.create_task(engine.look(name.with_tag(f"t{number}")))
                for name in dead
                for number in range(12)
            ]
            async with asyncio.timeout(5):
                while worker.busy < 130:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
                assert (await job(harness)).result is Result.PUBLISHED
            for look in looks:
                look.cancel()
            harness.services.stopping.set()


async def test_conversions_that_wait_take_no_place(tmp_path: Path, registry: Registry) -> None:
    """Registries that stop within a blob hold no place: another image is converted meanwhile."""
    go_on = threading.Event()
    with ExitStack() as stack:
        more = "[worker]\njobs = 1\n"
        stalled = []
        for number in range(4):
            other = stack.enter_context(Registry())
            content = sample(f"slow {number}")
            other.push(REPOSITORY, "latest", content)
            other.faults.stalls[content.document["layers"][1]["digest"]] = go_on
            more += (
                f'[[registry]]\nhost = "{other.address}"\nplain_http = true\n'
                f'[[image]]\nrepository = "{other.address}/{REPOSITORY}"\n'
            )
            stalled.append(Reference.parse(f"{other.address}/{REPOSITORY}:latest"))
        async with Harness(tmp_path, registry, more=more) as harness:
            registry.push(REPOSITORY, "latest", sample())
            jobs = await harness.services.worker.submit(stalled, Cause.SCHEDULE)
            async with asyncio.timeout(5):
                while len(harness.spool) < len(stalled):  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
                assert (await job(harness)).result is Result.PUBLISHED
            go_on.set()
            for waiting in jobs:
                assert (await harness.outcome(waiting.id)).result is Result.PUBLISHED


async def test_tidying_waits_for_no_conversion(tmp_path: Path, registry: Registry) -> None:
    """What dead conversions left is removed while others convert as many as may."""
    go_on = threading.Event()

    class Held(Silence):
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            go_on.wait(10)
            return super().begin(step, subject, total)

    async with Harness(
        tmp_path, registry, lambda _: Held(), more="[worker]\njobs = 1\n"
    ) as harness:
        registry.push(REPOSITORY, "latest", sample())
        syncing = asyncio.create_task(bring(harness))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(2):
            await harness.services.engine.tidy()
        assert not syncing.done()
        go_on.set()
        await syncing


async def test_one_image_is_converted_once(tmp_path: Path, registry: Registry) -> None:
    """Two tags of one image that are synced side by side share one conversion."""
    begun: list[str] = []

    class Steps(Silence):
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            begun.append(step)
            time.sleep(0.05)
            return super().begin(step, subject, total)

    tags = 'tags = ["a", "b"]'
    async with Harness(tmp_path, registry, lambda _: Steps(), image=tags) as harness:
        content = sample()
        for tag in ("a", "b"):
            registry.push(REPOSITORY, tag, content)
        outcomes = await asyncio.gather(bring(harness, "a"), bring(harness, "b"))
        assert [outcome.result for outcome in outcomes] == [Result.PUBLISHED] * 2
        assert begun.count("flatten") == 1
        gc.collect()
        assert len(harness.services.engine._turns) == 0


async def test_several_passing_faults_are_passing(tmp_path: Path, registry: Registry) -> None:
    """A job whose targets are all away for a while fails for a passing reason; else for good."""
    both = CLUSTER.format(tmp_path) + CLUSTER.format(tmp_path).replace('"cluster"', '"other"')
    only = 'targets = ["cluster", "other"]'
    async with Harness(tmp_path, registry, image=only, more=both) as harness:
        registry.push(REPOSITORY, "latest", sample())
        outcome = await job(harness)
        assert (outcome.result, outcome.temporary) == (Result.FAILED, True)
        with pytest.raises(TargetUnavailableError):
            await harness.services.containers.ensure(harness.latest, Cause.API)
    (tmp_path / "second").touch()
    only = 'targets = ["cluster", "second"]'
    more = CLUSTER.format(tmp_path) + SECOND.format(tmp_path)
    async with Harness(tmp_path, registry, image=only, more=more) as harness:
        outcome = await job(harness)
        assert (outcome.result, outcome.temporary) == (Result.FAILED, False)


async def test_conversions_at_a_time(tmp_path: Path, registry: Registry) -> None:
    """No more images are converted at a time than `worker.jobs` says, also after a reload."""
    converting: set[Reference] = set()
    go_on = threading.Event()

    class Held(Silence):
        def __init__(self, reference: Reference) -> None:
            self.reference = reference

        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            converting.add(self.reference)
            go_on.wait(10)
            return super().begin(step, subject, total)

    tags = 'tags = ["a", "b", "c", "d"]'
    jobs = "[worker]\njobs = 1\n"
    async with Harness(tmp_path, registry, Held, image=tags, more=jobs) as harness:
        for tag in "abcd":
            registry.push(REPOSITORY, tag, sample(tag))
        syncing = [asyncio.create_task(bring(harness, tag)) for tag in "abcd"]
        for limit in (1, 3):
            async with asyncio.timeout(5):
                while len(converting) < limit:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert len(converting) == limit
            text = harness.config.read_text()
            harness.config.write_text(text.replace("jobs = 1", "jobs = 3"))
            harness.services.live.reload()
        go_on.set()
        await asyncio.gather(*syncing)


def unsuitable(text: str = "") -> Content:
    """Return an image that no unprivileged container can be made from."""
    return image(layer(file("app/x", text.encode(), uid=197_609)))


async def test_warnings(tmp_path: Path, registry: Registry) -> None:
    """Whoever waits for a job, or looks at it later, hears what containers of the image lack."""
    async with Harness(tmp_path, registry, more=SECOND.format(tmp_path)) as harness:
        registry.push(REPOSITORY, "latest", unsuitable())
        with capture_logs() as logs:
            outcome = await job(harness)
        (warning,) = outcome.warnings
        assert "'./app/x' (197609:0)" in warning
        assert outcome.result is Result.PUBLISHED
        (record,) = harness.services.ledger.jobs(1)
        assert record.outcome is not None
        assert record.outcome.message.endswith(f"is published; {warning}")
        (line,) = (line for line in logs if line["log_level"] == "warning")
        assert line["warnings"] == (warning,)
        for condition in harness.services.ledger.conditions.all():
            assert (condition.status, condition.reason) == (Status.OK, warning)
        registry.push(REPOSITORY, "other", unsuitable())
        assert (await bring(harness, "other")).warnings == (warning,)
        assert (await bring(harness, "other")).warnings == ()


async def test_strict(tmp_path: Path, registry: Registry) -> None:
    """A strict image is refused with the reason, also when its file is here from before."""
    async with Harness(tmp_path, registry, image='tags = ["re:."]') as harness:
        registry.push(REPOSITORY, "latest", unsuitable())
        assert (await job(harness)).result is Result.PUBLISHED
        registry.push(REPOSITORY, "fine", sample())
        await bring(harness, "fine")
        (settings,) = harness.services.live.config.image
        harness.configure(image=(settings.model_copy(update={"strict": True}),))
        for tag, content in (("other", unsuitable()), ("another", unsuitable("changed"))):
            registry.push(REPOSITORY, tag, content)
            refused = await job(harness, harness.latest.with_tag(tag))
            assert refused.result is Result.FAILED
            assert not refused.temporary
            assert "'./app/x' (197609:0)" in refused.message
        registry.push(REPOSITORY, "fine-too", sample())
        assert (await bring(harness, "fine-too")).result is Result.PUBLISHED
        assert len(harness.templates) == 3


async def test_strict_is_converted_once(tmp_path: Path, registry: Registry) -> None:
    """A strict image's file that was judged before is taken as it is for the next tag."""
    registry.push(REPOSITORY, "latest", sample())
    registry.push(REPOSITORY, "other", sample())
    steps: list[str] = []

    class Steps(Silence):
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            steps.append(step)
            return super().begin(step, subject, total)

    lines = 'tags = ["latest", "other"]\nstrict = true'
    async with Harness(tmp_path, registry, lambda _: Steps(), image=lines) as harness:
        for tag in ("latest", "other"):
            assert (await bring(harness, tag)).result is Result.PUBLISHED
    assert steps.count("flatten") == 1


async def test_a_job_that_is_given_up(tmp_path: Path, registry: Registry) -> None:
    """A tag whose job died with the daemon three times is failing, until a job of it ends well."""
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        worker, ledger = harness.services.worker, harness.services.ledger
        ledger.accept([deadly := SyncJob(harness.latest, Cause.WEBHOOK)])
        for _ in range(3):
            ledger.start(deadly.id)
        await worker.resume()
        assert (await worker.finished(deadly)).result is Result.FAILED
        (condition,) = ledger.conditions.all()
        assert (condition.status, condition.passing, condition.next_try) == ("failing", False, None)
        assert condition.reason.startswith("given up: the daemon died 3 times")
        assert harness.templates == []
        await job(harness)
        (condition,) = ledger.conditions.all()
        assert condition.status == "ok"
