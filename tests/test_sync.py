"""What `syncd.sync` promises: whole jobs, from a registry to a folder, however they end."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.errors import NotFoundError, PublishError
from syncd.job import Advance, Cause, Outcome, Result, Silence, StoppedError, SyncJob
from syncd.reference import Digest, Reference
from tests.archives import file
from tests.fakes.registry import Registry
from tests.houses import REPOSITORY, House, sample
from tests.images import Content, image, index, layer, layer_of
from tests.templates import read

SECOND = '[[target]]\nname = "second"\ntype = "directory"\npath = "{}/second"\n'


async def bring(house: House, tag: str = "latest") -> Outcome:
    """Bring one tag up to date."""
    return await house.parts.sync.bring(SyncJob(house.repository.with_tag(tag), Cause.CLI))


async def job(house: House, reference: Reference | None = None) -> Outcome:
    """Let the worker do a job, faults and all."""
    worker = house.parts.worker
    (submitted,) = worker.submit([reference or house.latest], Cause.API)
    return await worker.finished(submitted)


def layers_of(*contents: Content) -> list[str]:
    """Return the digests of layers."""
    return [one["digest"] for content in contents for one in content.document["layers"]]


async def test_published(tmp_path: Path, registry: Registry) -> None:
    """A new image is a template under the web UI's name, with its provenance in the ledger."""
    async with House(tmp_path, registry) as house:
        one = sample()
        content = index(one, image(layer(), platform="linux/arm64"), attestation=True)
        registry.push(REPOSITORY, "latest", content)
        outcome = await bring(house)
        (path,) = house.templates
        config = one.document["config"]["digest"].removeprefix("sha256:")[:12]
        host = registry.address.replace(":", "_")
        assert path.name == f"{host}_org_repo_image_latest_{config}.tar.zst"
        assert outcome == Outcome(
            Result.PUBLISHED, f"{content.digest} is published", (f"local:vztmpl/{path.name}",)
        )
        assert {entry.name: entry.content for entry in read(path)}[b"./text"] == b"one"
        (template,) = house.parts.ledger.templates()
        assert (template.reference, template.target) == (house.latest, "local")
        assert (str(template.digest), str(template.manifest_digest)) == (content.digest, one.digest)
        assert str(template.config_digest) == one.document["config"]["digest"]
        assert len(template.diff_ids) == 2
        assert template.file_digest == Digest.of(path.read_bytes())
        assert template.size == path.stat().st_size
        assert template.volumes == outcome.volumes
        assert house.spool == []


async def test_unchanged(tmp_path: Path, registry: Registry) -> None:
    """What is published already costs one HEAD, and nothing more is read."""
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "latest", content := sample())
        first = await bring(house)
        registry.requests.clear()
        outcome = await bring(house)
        assert outcome == Outcome(
            Result.UNCHANGED, f"{content.digest} is published already", first.volumes
        )
        assert [method for method, _ in registry.requests] == ["HEAD"]


async def test_a_lost_file_is_made_again(tmp_path: Path, registry: Registry) -> None:
    """A template that is gone from the target is made again, from what is cached."""
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "latest", sample())
        first = await bring(house)
        (path,) = house.templates
        content = path.read_bytes()
        path.unlink()
        registry.requests.clear()
        assert await bring(house) == first
        assert path.read_bytes() == content
        assert not set(registry.fetched()) & set(layers_of(sample()))


async def test_a_damaged_file_is_no_source(tmp_path: Path, registry: Registry) -> None:
    """A template that was cut short is neither taken for good nor overwritten."""
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "latest", sample())
        await bring(house)
        (path,) = house.templates
        os.truncate(path, 10)
        with pytest.raises(PublishError, match="another size"):
            await bring(house)
        assert path.stat().st_size == 10
        path.unlink()
        assert (await bring(house)).result is Result.PUBLISHED
        assert read(path)


async def test_changed(tmp_path: Path, registry: Registry) -> None:
    """A tag that moved is a second template; only the layers that are new are fetched."""
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "latest", one := sample("one"))
        await bring(house)
        registry.requests.clear()
        registry.push(REPOSITORY, "latest", two := sample("two"))
        assert (await bring(house)).result is Result.PUBLISHED
        assert len(house.templates) == 2
        new = set(layers_of(two)) - set(layers_of(one))
        assert set(registry.fetched()) & set(layers_of(one, two)) == new


async def test_retention(tmp_path: Path, registry: Registry) -> None:
    """Of each tag the newest versions stay; other tags, other files and pinned ones are spared."""
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "stable", sample("stable"))
        stable = await bring(house, "stable")
        foreign = house.templates[0].with_name("somebody-elses.tar.zst")
        foreign.touch()
        volumes: list[str] = []
        for number in range(4):
            registry.push(REPOSITORY, "latest", sample(str(number)))
            outcome = await bring(house)
            volumes += outcome.volumes
            if number == 0:
                (template,) = house.parts.ledger.templates(house.latest)
                house.parts.ledger.record(replace(template, pinned=True))
        stay = {*stable.volumes, volumes[0], *volumes[2:], f"local:vztmpl/{foreign.name}"}
        assert {f"local:vztmpl/{path.name}" for path in house.templates} == stay
        assert {one.volumes[0] for one in house.parts.ledger.templates(house.latest)} == {
            volumes[0],
            *volumes[2:],
        }


async def test_a_tag_that_went_back(tmp_path: Path, registry: Registry) -> None:
    """What a tag means now is its newest version, also if it was published before another."""
    async with House(tmp_path, registry) as house:
        for text in ("one", "two", "one"):
            registry.push(REPOSITORY, "latest", sample(text))
            outcome = await bring(house)
        assert outcome.result is Result.UNCHANGED
        registry.push(REPOSITORY, "latest", sample("three"))
        newest = await bring(house)
        assert {f"local:vztmpl/{path.name}" for path in house.templates} == {
            *outcome.volumes,
            *newest.volumes,
        }


async def test_prune_dry_run(tmp_path: Path, registry: Registry) -> None:
    """A dry run of retention names what would go, and deletes nothing."""
    async with House(tmp_path, registry) as house:
        for text in ("one", "two"):
            registry.push(REPOSITORY, "latest", sample(text))
            await bring(house)
        sync = house.parts.sync
        errand = sync.errand(house.latest)
        errand = replace(errand, settings=errand.settings.model_copy(update={"keep": 1}))
        before = house.templates
        (would,) = sync.retain(errand, dry_run=True)
        assert house.templates == before
        assert sync.retain(errand) == [would]
        assert len(house.templates) == 1


async def test_kept_off(tmp_path: Path, registry: Registry) -> None:
    """Retention leaves what is pinned and what is in use, for as long as it is so."""
    async with House(tmp_path, registry, image="keep = 1") as house:
        registry.push(REPOSITORY, "latest", sample("one"))
        first = (await bring(house)).volumes
        sync, ledger = house.parts.sync, house.parts.ledger
        errand = sync.errand(house.latest)
        registry.push(REPOSITORY, "latest", sample("two"))
        with sync.using(first):
            await bring(house)
            assert len(house.templates) == 2
        assert ledger.pin(first[0], pinned=True)
        assert sync.retain(errand) == []
        assert ledger.pin(first[0], pinned=False)
        assert [one.volumes for one in sync.retain(errand)] == [first]
        assert not ledger.pin(first[0], pinned=True)


async def test_a_refused_deletion_is_no_failure(tmp_path: Path, registry: Registry) -> None:
    """A version that cannot be deleted stays in the ledger for the next time."""
    async with House(tmp_path, registry, image="keep = 1") as house:
        registry.push(REPOSITORY, "latest", sample("one"))
        await bring(house)
        (old,) = house.templates
        registry.push(REPOSITORY, "latest", sample("two"))
        local = house.parts.sync.targets["local"]

        def refuse(volume: object) -> None:
            raise PublishError("no")

        local.delete, delete = refuse, local.delete  # type: ignore[method-assign] # a disk that refuses
        assert (await bring(house)).result is Result.PUBLISHED
        assert len(house.parts.ledger.templates()) == 2
        local.delete = delete  # type: ignore[method-assign] # it takes it again
        house.parts.sync.retain(house.parts.sync.errand(house.latest))
        assert len(house.templates) == 1
        assert old not in house.templates


async def test_two_tags_of_one_image(tmp_path: Path, registry: Registry) -> None:
    """A second tag of an image costs no blob and, as one file with it, no byte of disk."""
    async with House(tmp_path, registry) as house:
        for tag in ("latest", "v1"):
            registry.push(REPOSITORY, tag, sample())
        await bring(house)
        registry.requests.clear()
        assert (await bring(house, "v1")).result is Result.PUBLISHED
        assert not set(registry.fetched()) & set(layers_of(sample()))
        first, second = house.templates
        assert first.samefile(second)


async def test_one_conversion_for_two_tags(tmp_path: Path, registry: Registry) -> None:
    """An image is converted once for all its tags, though no target can give the file back."""
    steps: list[str] = []

    class Steps:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            steps.append(step)
            return lambda _: None

    async with House(tmp_path, registry, lambda _: Steps()) as house:
        for tag in ("latest", "v1"):
            registry.push(REPOSITORY, tag, sample())
        await bring(house)
        (first,) = house.templates
        content = first.read_bytes()
        first.unlink()
        await bring(house, "v1")
        (second,) = house.templates
        assert second.read_bytes() == content
        assert steps.count("flatten") == 1


async def test_one_file_for_two_tags(tmp_path: Path, registry: Registry) -> None:
    """A name without tag is one file; it goes only when no tag means it any more."""
    pattern = 'name = "{image}_{config12}"\nkeep = 1\ntags = ["a", "b"]'
    async with House(tmp_path, registry, image=pattern) as house:
        for tag in ("a", "b"):
            registry.push(REPOSITORY, tag, sample("one"))
        assert (await bring(house, "a")).result is Result.PUBLISHED
        assert (await bring(house, "b")).result is Result.UNCHANGED
        assert (await bring(house, "b")).message.endswith("already")
        (one,) = house.templates
        for tag, left in (("a", 2), ("b", 1)):
            registry.push(REPOSITORY, tag, sample("two"))
            await bring(house, tag)
            assert len(house.templates) == left
        assert one not in house.templates


async def test_several_targets(tmp_path: Path, registry: Registry) -> None:
    """Every target gets it; one that fails keeps no other waiting, and is made up later."""
    more = SECOND.format(tmp_path)
    (tmp_path / "second").touch()
    async with House(tmp_path, registry, more=more) as house:
        registry.push(REPOSITORY, "latest", sample())
        outcome = await job(house)
        assert outcome.result is Result.FAILED
        assert f"{tmp_path}/second/template/cache cannot be made" in outcome.message
        assert len(house.templates) == 1
        (tmp_path / "second").unlink()
        outcome = await job(house)
        assert outcome.result is Result.PUBLISHED
        assert {volume.partition(":")[0] for volume in outcome.volumes} == {"local", "second"}
        assert (await job(house)).result is Result.UNCHANGED


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
    async with House(tmp_path, registry, image=first, more=CLUSTER.format(tmp_path)) as house:
        registry.push(REPOSITORY, "latest", sample())
        outcome = await job(house)
        assert outcome.result is Result.FAILED
        assert "127.0.0.1:1" in outcome.message
        assert len(house.templates) == 1


async def test_chosen_targets(tmp_path: Path, registry: Registry) -> None:
    """An image goes to the targets it names, and to no other."""
    more, only = SECOND.format(tmp_path), 'targets = ["second"]'
    async with House(tmp_path, registry, image=only, more=more) as house:
        registry.push(REPOSITORY, "latest", sample())
        (volume,) = (await bring(house)).volumes
        assert volume.startswith("second:")
        assert house.templates == []


async def test_no_target(tmp_path: Path, registry: Registry) -> None:
    """Without a target a job says so before the registry is asked."""
    async with House(tmp_path, registry) as house:
        house.parts.sync.targets = {}
        with pytest.raises(PublishError, match=r"add a \[\[target\]\]"):
            await bring(house)
        assert registry.requests == []


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ('["latest", "main"]', ["latest", "main"]),
        ('["re:^v[0-9]"]', ["v1", "v2"]),
        ('["v2", "re:^v"]', ["v2", "v1"]),
        ('["re:^x"]', []),
    ],
)
async def test_watched(tags: str, found: list[str], tmp_path: Path, registry: Registry) -> None:
    """The watched tags are those given by name, and those of the registry that match."""
    async with House(tmp_path, registry, image=f"tags = {tags}") as house:
        for tag in ("latest", "v1", "v2"):
            registry.push(REPOSITORY, tag, sample())
        watched = await house.parts.sync.watched(house.repository)
        assert [one.tag for one in watched] == found
        assert bool(registry.requests) == ("re:" in tags)


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
    async with House(tmp_path, registry, lambda _: watch) as house:
        watch.act = house.parts.stopping.set
        registry.push(REPOSITORY, "latest", sample())
        with pytest.raises(StoppedError):
            await bring(house)
        assert (house.templates, house.spool) == ([], [])
        watch.act = lambda: None
        house.parts.stopping.clear()
        assert (await bring(house)).result is Result.PUBLISHED


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
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "latest", sample())
        await bring(house)
        before = house.templates
        large = image(layer(file("large", os.urandom(4 << 20))))
        registry.push(REPOSITORY, "latest", large)
        with largest_file(2 << 20):
            outcome = await job(house)
        assert outcome.result is Result.FAILED
        assert "File too large" in outcome.message
        assert "free space" in outcome.message
        assert (house.templates, house.spool) == (before, [])
        assert (await job(house)).result is Result.PUBLISHED


BAD = sample("bad")
TEXT_LAYER = BAD.document["layers"][1]["digest"]
NO_TAR = image(layer_of(b"this is no tar" * 100))
ARM = index(image(layer(), platform="linux/arm64"))


def truncated(registry: Registry) -> None:
    registry.replace_blob(TEXT_LAYER, BAD.blobs[TEXT_LAYER][:-1])
    registry.faults.ranges = False


FAULTS: dict[str, tuple[Content | None, Callable[[Registry], None], str]] = {
    "unknown": (None, lambda _: None, r"has no .*/org/repo/image:bad.*check the name"),
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
    "layer gone": (BAD, lambda r: r.replace_blob(TEXT_LAYER, None), r"has no .*sha256"),
    "manifest gone": (BAD, lambda r: r.replace_blob(BAD.digest, None), r"has no .*:bad"),
    "no tar": (NO_TAR, lambda _: None, r"layer sha256:.*"),
    "other platform": (ARM, lambda _: None, r"no manifest for linux/amd64"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_bad_input(name: str, tmp_path: Path, registry: Registry) -> None:
    """What goes wrong fails its job in one sentence; nothing else changes, and syncd goes on."""
    content, spoil, message = FAULTS[name]
    async with House(tmp_path, registry) as house:
        house.parts.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign] # no real waits
        registry.push(REPOSITORY, "latest", sample())
        await bring(house)
        before = [(path, path.read_bytes()) for path in house.templates]
        if content:
            registry.push(REPOSITORY, "bad", content)
        spoil(registry)
        outcome = await job(house, house.repository.with_tag("bad"))
        assert outcome.result is Result.FAILED
        assert re.search(message, outcome.message)
        assert "fault in syncd" not in outcome.message
        assert "\n" not in outcome.message
        assert [(path, path.read_bytes()) for path in house.templates] == before
        assert house.spool == []
        assert len(house.parts.ledger.templates()) == 1
        registry.login = None
        registry.push(REPOSITORY, "good", sample("good"))
        assert (await job(house, house.repository.with_tag("good"))).result is Result.PUBLISHED


async def test_held(tmp_path: Path, registry: Registry) -> None:
    """What is held is told for what a tag means now, by one HEAD."""
    async with House(tmp_path, registry) as house:
        registry.push(REPOSITORY, "latest", sample())
        assert await house.parts.sync.held(house.latest) is None
        volumes = (await bring(house)).volumes
        registry.requests.clear()
        assert await house.parts.sync.held(house.latest) == volumes
        assert len(registry.requests) == 1
        with pytest.raises(NotFoundError):
            await house.parts.sync.held(house.repository.with_tag("none"))
