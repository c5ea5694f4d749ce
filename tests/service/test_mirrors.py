"""What mirrors save, and what they cannot do: change a tag, a template, or a job's end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from syncd.config import load_config
from syncd.errors import VerificationError
from syncd.oci import BlobCache, Digest, MirrorLocation
from syncd.oci.registry import mirrored
from syncd.service.checks import check_results
from syncd.service.mirror_checks import mirror_results
from syncd.service.schedule import Schedule
from syncd.sync.job import Result
from tests.chunked import chunked_layer
from tests.convert.parts.test_pull import FIRST, SECOND, spoiled, swap_files, tree
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample
from tests.images import digest, image, index

IMAGE = sample()
DOCUMENTS = {IMAGE.digest, IMAGE.document["config"]["digest"]}
TEXT_LAYER = IMAGE.document["layers"][1]["digest"]


@pytest.fixture
def mirror() -> Iterator[Registry]:
    """Provide a mirror that has the image, under a tag that nobody asks it for."""
    with Registry() as running:
        running.push(REPOSITORY, "mirrored", IMAGE)
        yield running


def behind(folder: Path, registry: Registry, *mirrors: str, tags: bool = False) -> Harness:
    """Return a harness whose registry has mirrors."""
    urls = ", ".join(f'"{url}"' for url in mirrors)
    access = f"mirrors = [{urls}]\nmirror_tags = {str(tags).lower()}"
    return Harness(folder, registry, access=access)


async def publish(harness: Harness) -> None:
    """Bring the tag up to date, which has to be needed."""
    harness.services.stopping.wait = lambda timeout=None: False  # type: ignore[method-assign] # no real waits
    outcome = await harness.bring()
    assert outcome.result is Result.PUBLISHED, outcome.message


def served(registry: Registry) -> set[str]:
    """Return the digests of what a registry was asked for."""
    kinds = re.compile(r"/(?:manifests|blobs)/(sha256:[0-9a-f]{64})$")
    return {found[1] for _, path in registry.requests if (found := kinds.search(path))}


async def test_one_question(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """The registry says what the tag means; everything else comes from the mirror."""
    registry.push(REPOSITORY, "latest", IMAGE)
    async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
        await publish(harness)
        assert registry.requests[0] == ("HEAD", f"/v2/{REPOSITORY}/manifests/latest")
        assert [path for _, path in registry.requests if path.endswith(".sig")]
        assert not [path for _, path in mirror.requests if path.endswith(".sig")]
        assert served(registry) == set()
        assert served(mirror) >= DOCUMENTS | {TEXT_LAYER}


async def test_folder(tmp_path: Path, registry: Registry) -> None:
    """A mirror may have the repositories of the registry in a folder."""
    registry.push(REPOSITORY, "latest", IMAGE)
    with Registry() as mirror:
        mirror.push(f"proxy/ghcr/{REPOSITORY}", "mirrored", IMAGE)
        async with behind(tmp_path, registry, f"http://{mirror.address}/proxy/ghcr/") as harness:
            await publish(harness)
            assert served(registry) == set()
            assert TEXT_LAYER in served(mirror)


def refuses(mirror: Registry) -> None:
    mirror.faults.refusals.extend([(500, {}, b"")] * 50)


def lacks(mirror: Registry) -> None:
    mirror.repositories.clear()


def lacks_a_layer(mirror: Registry) -> None:
    mirror.replace_blob(TEXT_LAYER, None)


def breaks_off(mirror: Registry) -> None:
    mirror.faults.break_after.extend([10] * 50)


def changes_a_document(mirror: Registry) -> None:
    mirror.replace_blob(IMAGE.digest, IMAGE.blobs[IMAGE.digest][:-1] + b" ")


def changes_a_layer(mirror: Registry) -> None:
    content = bytearray(IMAGE.blobs[TEXT_LAYER])
    content[len(content) // 2] ^= 1
    mirror.replace_blob(TEXT_LAYER, bytes(content))


def answers_zeros(mirror: Registry) -> None:
    mirror.replace_blob(TEXT_LAYER, bytes(len(IMAGE.blobs[TEXT_LAYER])))


def goes_on(mirror: Registry) -> None:
    mirror.replace_blob(TEXT_LAYER, IMAGE.blobs[TEXT_LAYER] + b"more")


def denies(mirror: Registry) -> None:
    mirror.login = ("somebody", "else")


def redirects_to_nothing(mirror: Registry) -> None:
    with Registry() as closed:
        mirror.faults.blobs_at = closed.address


def shows_a_login(mirror: Registry) -> None:
    mirror.faults.refusals.extend([(200, {"Content-Type": "text/html"}, b"<html>log in")] * 50)


@pytest.mark.parametrize(
    "spoil",
    [
        refuses, breaks_off, changes_a_document, changes_a_layer, answers_zeros, goes_on,
        shows_a_login, denies, redirects_to_nothing,
    ],
)  # fmt: skip
async def test_passed_over(
    spoil: Callable[[Registry], None], tmp_path: Path, registry: Registry, mirror: Registry
) -> None:
    """A mirror that fails or lies costs no job: the registry is asked, and the fault told once."""
    registry.push(REPOSITORY, "latest", IMAGE)
    spoil(mirror)
    with structlog.testing.capture_logs() as logs:
        async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
            await publish(harness)
            asked_before = len(mirror.requests)
            registry.push(REPOSITORY, "latest", sample("two"))
            await publish(harness)
            assert len(mirror.requests) == asked_before  # it is left alone
    (told,) = [entry for entry in logs if entry["event"] == "mirror passed over"]
    assert told["mirror"] == f"http://{mirror.address}"
    assert harness.spool == []


@pytest.mark.parametrize("spoil", [lacks, lacks_a_layer])
async def test_lacking(
    spoil: Callable[[Registry], None], tmp_path: Path, registry: Registry, mirror: Registry
) -> None:
    """What a mirror lacks comes from the registry; that is no fault of the mirror."""
    registry.push(REPOSITORY, "latest", IMAGE)
    spoil(mirror)
    with structlog.testing.capture_logs() as logs:
        async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
            await publish(harness)
    assert not [entry for entry in logs if entry["event"] == "mirror passed over"]


async def test_store_that_refuses(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """A mirror whose store refuses what it is redirected for is passed over, too."""
    registry.push(REPOSITORY, "latest", IMAGE)
    with Registry() as store:
        mirror.faults.blobs_at = store.address
        async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
            await publish(harness)
            assert TEXT_LAYER in served(registry)


async def test_what_mirrors_do_not_list(
    tmp_path: Path, registry: Registry, mirror: Registry
) -> None:
    """With `mirror_tags` a tag that the mirror does not list any more is not deleted for that."""
    mirror.push(REPOSITORY, "v1", IMAGE)
    url = f'mirrors = ["http://{mirror.address}"]\nmirror_tags = true'
    image = 'tags = ["re:^v"]\ngone = "1s"'
    async with Harness(tmp_path, registry, access=url, image=image) as harness:
        await harness.bring("v1")
        (template,) = harness.templates
        mirror.untag(REPOSITORY, "v1")
        mirror.push(REPOSITORY, "other", IMAGE)
        await Schedule(harness.services).sweep()
        await harness.services.reaper.reap_by_configuration()
        await harness.services.reaper.reap(timedelta(0))
        assert harness.templates == [template]


async def test_next_mirror(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """Behind a mirror that is not there the next one is asked."""
    registry.push(REPOSITORY, "latest", IMAGE)
    with Registry() as closed:
        nowhere = f"http://{closed.address}"
    async with behind(tmp_path, registry, nowhere, f"http://{mirror.address}") as harness:
        await publish(harness)
        assert served(registry) == set()
        assert TEXT_LAYER in served(mirror)


async def test_same_template(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """The template has the same bytes, whoever gave those of the image."""
    registry.push(REPOSITORY, "latest", IMAGE)
    templates = []
    for name, mirrors in (("without", []), ("with", [f"http://{mirror.address}"])):
        folder = tmp_path / name
        folder.mkdir()
        async with behind(folder, registry, *mirrors) as harness:
            await publish(harness)
            (template,) = harness.templates
            templates.append(template.read_bytes())
    assert templates[0] == templates[1]


@pytest.mark.parametrize("several", [None, 200, 416])
async def test_ranges(
    tmp_path: Path, registry: Registry, mirror: Registry, several: int | None
) -> None:
    """A mirror gives the parts of a layer, if need be one at a time, and the registry none."""
    mirror.faults.several = several
    async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
        for layer in (FIRST, SECOND):
            for place in (registry, mirror):
                place.push(REPOSITORY, "latest", image(layer))
            await publish(harness)
    assert served(registry) == set()
    whole = [asked for (_, path), asked in zip(mirror.requests, mirror.ranges, strict=True)
             if digest(SECOND.stored) in path and not asked]  # fmt: skip
    assert whole == []


async def test_liars_of_blobs(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """Mirrors that all have wrong blobs are passed over by one job."""
    registry.push(REPOSITORY, "latest", IMAGE)
    with Registry() as second, structlog.testing.capture_logs() as logs:
        second.push(REPOSITORY, "latest", IMAGE)
        urls = [f"http://{place.address}" for place in (mirror, second)]
        for place in (mirror, second):
            changes_a_layer(place)
        async with behind(tmp_path, registry, *urls) as harness:
            await publish(harness)
    assert [entry["mirror"] for entry in logs if entry["event"] == "mirror passed over"] == urls


@pytest.mark.parametrize("number", [1, 2])
async def test_lies_in_ranges(tmp_path: Path, registry: Registry, number: int) -> None:
    """Mirrors whose ranges alone are wrong are passed over, and the registry gives the parts."""
    with ExitStack() as stack, structlog.testing.capture_logs() as logs:
        mirrors = [stack.enter_context(Registry()) for _ in range(number)]
        urls = [f"http://{mirror.address}" for mirror in mirrors]
        async with behind(tmp_path, registry, *urls) as harness:
            for layer in (FIRST, SECOND):
                for place in (registry, *mirrors):
                    place.push(REPOSITORY, "latest", image(layer))
                outcome = await harness.bring()
                assert (outcome.result, outcome.warnings) == (Result.PUBLISHED, ())
                for mirror in mirrors:
                    mirror.faults.shift = 1
    asked = [asked for (_, path), asked in zip(registry.requests, registry.ranges, strict=True)
             if digest(SECOND.stored) in path]  # fmt: skip
    assert asked
    assert all(asked)
    told = [entry["mirror"] for entry in logs if entry["event"] == "mirror passed over"]
    assert told == urls


@pytest.mark.parametrize("ranges", [True, False])
async def test_image_to_blame(
    tmp_path: Path, registry: Registry, mirror: Registry, ranges: bool
) -> None:
    """An image that is wrong in the registry, too, keeps nobody off the mirror, and is told.

    So is one of which the registry cannot tell, since it serves no ranges.
    """
    registry.faults.ranges = ranges
    wrong, again = spoiled(swap_files), chunked_layer(tree(b"again"))
    with structlog.testing.capture_logs() as logs:
        async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
            for layer in (FIRST, wrong, again):
                for place in (registry, mirror):
                    place.push(REPOSITORY, "latest", image(layer))
                outcome = await harness.bring()
                assert outcome.result is Result.PUBLISHED
                assert bool(outcome.warnings) is (layer is wrong)
    assert not [entry for entry in logs if entry["event"] == "mirror passed over"]
    assert digest(again.stored) in served(mirror) - served(registry)


def shifts_ranges(mirror: Registry) -> None:
    mirror.push(REPOSITORY, "latest", image(SECOND))
    mirror.faults.shift = 1


def has_a_wrong_table(mirror: Registry) -> None:
    mirror.push(REPOSITORY, "latest", image(spoiled(swap_files)))


@pytest.mark.parametrize("spoil", [shifts_ranges, has_a_wrong_table])
async def test_no_way_out(
    spoil: Callable[[Registry], None], tmp_path: Path, mirror: Registry
) -> None:
    """A mirror whose ranges alone are wrong gives the layers whole where nobody else gives any."""
    with Registry() as closed:
        pass
    with structlog.testing.capture_logs() as logs:
        async with behind(tmp_path, closed, f"http://{mirror.address}", tags=True) as harness:
            mirror.push(REPOSITORY, "latest", image(FIRST))
            await publish(harness)
            spoil(mirror)
            outcome = await harness.bring()
    assert outcome.result is Result.PUBLISHED
    assert len(outcome.warnings) == 1
    assert "was pulled whole" in outcome.warnings[0]
    assert not [entry for entry in logs if entry["event"] == "mirror passed over"]


@pytest.mark.parametrize("is_there", [True, False])
async def test_honest_beside_a_liar(
    tmp_path: Path, registry: Registry, mirror: Registry, is_there: bool
) -> None:
    """Who gave other layers is asked for the one that a mirror gave wrong, and is not blamed."""
    with Registry() as honest, structlog.testing.capture_logs() as logs:
        for place in (registry, mirror, honest):
            place.push(REPOSITORY, "latest", IMAGE)
        for other in {layer["digest"] for layer in IMAGE.document["layers"]} - {TEXT_LAYER}:
            mirror.replace_blob(other, None)
        changes_a_layer(mirror)
        if not is_there:
            registry.faults.refusals.extend([(503, {}, b"")] * 500)
        urls = [f"http://{place.address}" for place in (mirror, honest)]
        async with behind(tmp_path, registry, *urls, tags=True) as harness:
            await publish(harness)
        assert served(honest) >= {TEXT_LAYER}
    told = [entry["mirror"] for entry in logs if entry["event"] == "mirror passed over"]
    assert told == urls[:1]
    assert TEXT_LAYER not in served(registry)


async def test_several_platforms(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """What one platform's image says wrongly of a blob is no evidence for another's."""
    wrong = image(replace(SECOND, plain=b"another tar"))
    at_first = index(image(FIRST), image(FIRST, platform="linux/arm64"))
    then = index(wrong, image(SECOND, platform="linux/arm64"))
    access = f'mirrors = ["http://{mirror.address}"]'
    platforms = 'platform = ["linux/amd64", "linux/arm64"]'
    with structlog.testing.capture_logs() as logs:
        async with Harness(tmp_path, registry, access=access, image=platforms) as harness:
            for content in (at_first, then):
                for place in (registry, mirror):
                    place.push(REPOSITORY, "latest", content)
                fails = pytest.raises(VerificationError, match="diff_id")
                with fails if content is then else nullcontext():
                    await harness.bring()
            assert len(harness.templates) == 3
    assert not [entry for entry in logs if entry["event"] == "mirror passed over"]


@pytest.mark.parametrize("is_whole", [True, False])
async def test_kept_wrong(
    tmp_path: Path, registry: Registry, mirror: Registry, is_whole: bool
) -> None:
    """What was kept of a blob, and is wrong, fails no job and blames nobody."""
    stored = IMAGE.blobs[TEXT_LAYER]
    with structlog.testing.capture_logs() as logs:
        async with behind(tmp_path, registry, f"http://{mirror.address}") as harness:
            registry.push(REPOSITORY, "latest", IMAGE)
            cache = BlobCache(harness.services.live.config.state.paths.blob_cache)
            blob, part = BlobCache.places(cache.folder, Digest.parse(TEXT_LAYER))
            (blob if is_whole else part).write_bytes(bytes(len(stored) // (1 if is_whole else 2)))
            await publish(harness)
    assert not [entry for entry in logs if entry["event"] == "mirror passed over"]


async def test_liar_that_breaks_off(tmp_path: Path, registry: Registry) -> None:
    """An honest mirror that went on where a liar broke off is asked for the whole blob."""
    with ExitStack() as stack, structlog.testing.capture_logs() as logs:
        liar, honest = (stack.enter_context(Registry()) for _ in range(2))
        for place in (registry, liar, honest):
            place.push(REPOSITORY, "latest", IMAGE)
        answers_zeros(liar)
        for other in IMAGE.blobs.keys() - {TEXT_LAYER}:
            liar.replace_blob(other, None)
        registry.replace_blob(TEXT_LAYER, None)
        liar.faults.break_after.extend([5] * 50)
        urls = [f"http://{place.address}" for place in (liar, honest)]
        async with behind(tmp_path, registry, *urls) as harness:
            await publish(harness)
        assert TEXT_LAYER in served(liar)
    told = [entry for entry in logs if entry["event"] == "wrong bytes from a mirror"]
    assert [entry["mirrors"] for entry in told] == [urls]
    assert [entry["mirror"] for entry in logs if entry["event"] == "mirror passed over"] == urls[:1]


async def test_tags(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """With `mirror_tags` the mirror says what a tag means, and the registry only what it lacks."""
    registry.push(REPOSITORY, "latest", sample("two"))
    mirror.push(REPOSITORY, "latest", IMAGE)
    async with behind(tmp_path, registry, f"http://{mirror.address}", tags=True) as harness:
        await publish(harness)
        assert not [path for _, path in registry.requests if path.endswith("/latest")]
        assert [path for _, path in mirror.requests if path.endswith(".sig")]
        lacks(mirror)
        await publish(harness)  # what the registry has: another image


async def test_credentials(tmp_path: Path, mirror: Registry) -> None:
    """A mirror that asks for a login gets its own, never that of the registry."""
    secret = tmp_path / "password"
    secret.write_text("of the registry")
    secret.chmod(0o600)
    with Registry(("user", "of the registry")) as registry:
        mirror.login = ("mirror", "of the mirror")
        registry.push(REPOSITORY, "latest", IMAGE)
        access = f'username = "user"\npassword_file = "{secret}"\n'
        access += f'mirrors = ["http://{mirror.address}"]'
        async with Harness(tmp_path, registry, access=access) as harness:
            await publish(harness)
    assert set(mirror.authorizations) == {""}
    assert TEXT_LAYER in served(registry)


def test_check(tmp_path: Path, registry: Registry, mirror: Registry) -> None:
    """A check asks each mirror for a watched image, since no job would fail for want of it."""
    registry.push(REPOSITORY, "latest", IMAGE)
    harness = behind(tmp_path, registry, f"http://{mirror.address}", f"http://{mirror.address}/a")
    results = {found.subject: found for found in mirror_results(load_config(harness.config))}
    good, bad = (
        results[f"mirror http://{mirror.address}{folder} of {registry.address}"]
        for folder in ("", "/a")
    )
    assert (good.ok, good.detail) == (True, f"has {harness.latest}")
    assert not bad.ok
    assert "does not have" in bad.detail
    assert "the registry is asked instead" in bad.detail
    assert set(results) <= {found.subject for found in check_results(load_config(harness.config))}


def test_left_alone_for_a_while() -> None:
    """A mirror that failed is asked again after five minutes, one that lied after an hour."""
    now = 1000.0
    alone = mirrored.LeftAlone(lambda: now)
    failed, lied = (MirrorLocation(name) for name in ("failed", "lied"))
    with structlog.testing.capture_logs() as logs:
        alone.add(failed, mirrored.FAILED, "it fails")
        alone.add(lied, mirrored.FAILED, "it fails first")
        alone.add(lied, mirrored.LIED, "it lies")
        alone.add(lied, mirrored.FAILED, "it fails again")
    assert [entry["minutes"] for entry in logs] == [5, 5, 60]
    for later, expected in ((299, (True, True)), (301, (False, True)), (3601, (False, False))):
        now = 1000.0 + later
        assert (alone.has(failed), alone.has(lied)) == expected
