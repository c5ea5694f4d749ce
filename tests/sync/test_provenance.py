"""What images say of themselves, beside their templates: in the ledger, and as files."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.config.settings import ImageSettings
from syncd.errors import NotFoundError
from syncd.sync.job import Result
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described
from tests.images import digest
from tests.sigstore import IMAGE, OTHER, SLSA, attach_referrer, recorded, statement
from tests.trust.test_attestations import SPDX, built
from tests.waiting import until

SAID = statement(IMAGE.digest, SPDX)


async def test_kept(tmp_path: Path, registry: Registry) -> None:
    """The ledger has what the image brought; a file beside the template only if that is wanted."""
    content = built(IMAGE, statement(IMAGE.digest, SPDX))
    registry.push(REPOSITORY, "latest", content)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("provenance").bundle)
    async with Harness(tmp_path, registry) as harness:
        assert (await harness.bring()).result is Result.PUBLISHED
        assert len(harness.templates) == 1
        answer = await harness.ask("GET", "/api/v1/images")
        (template,) = described(answer, "/api/v1/images")["templates"]
        assert [one["predicate"] for one in template["attestations"]] == [SPDX, SLSA]
        (image,) = harness.services.ledger.attestations.all()
        (bare, signed) = harness.services.ledger.attestations.of(image)
        assert bare.content == statement(IMAGE.digest, SPDX)
        assert json.loads(signed.content) == recorded("provenance").bundle


async def test_beside(tmp_path: Path, registry: Registry) -> None:
    """The file beside has one attestation a line, for all to read, and goes with its template."""
    content = built(IMAGE, statement(IMAGE.digest, SPDX), statement(IMAGE.digest, SLSA))
    registry.push(REPOSITORY, "latest", content)
    image = "provenance = true\nkeep = 1\n"
    async with Harness(tmp_path, registry, image=image) as harness:
        await harness.bring()
        template, beside = sorted(harness.templates, key=lambda path: len(path.name))
        assert beside.name == f"{template.name}.intoto.jsonl"
        assert beside.stat().st_mode & 0o777 == 0o644
        lines = [json.loads(line) for line in beside.read_text().splitlines()]
        assert [line["predicateType"] for line in lines] == [SPDX, SLSA]
        (volume,) = harness.services.live.targets["local"].volumes()
        assert volume.name == template.name
        registry.push(REPOSITORY, "latest", OTHER)
        await harness.bring()
        (left,) = harness.templates
        assert left.name not in (template.name, beside.name)


@pytest.fixture
def come(registry: Registry) -> Iterator[threading.Event]:
    """Give what the attestation of the tag `latest` waits for."""
    registry.push(REPOSITORY, "latest", built(IMAGE, SAID))
    registry.faults.stalls[digest(SAID)] = go_on = threading.Event()
    yield go_on
    go_on.set()


async def test_meanwhile(tmp_path: Path, registry: Registry, come: threading.Event) -> None:
    """The image is converted and published while its attestations come."""
    async with Harness(tmp_path, registry) as harness:
        bringing = asyncio.ensure_future(harness.bring())
        await until(lambda: len(harness.templates) == 1)
        await asyncio.sleep(0.2)  # in which the job would end
        assert not bringing.done()
        come.set()
        assert (await bringing).result is Result.PUBLISHED
        assert harness.services.ledger.attestations.all()


async def test_beside_in_time(tmp_path: Path, registry: Registry, come: threading.Event) -> None:
    """A template with a file beside it is not seen before that file."""
    async with Harness(tmp_path, registry, image="provenance = true") as harness:
        bringing = asyncio.ensure_future(harness.bring())
        await until(lambda: digest(SAID) in registry.fetched())
        await asyncio.sleep(0.5)  # in which the image would be published
        assert not harness.templates
        come.set()
        assert (await bringing).result is Result.PUBLISHED
        assert len(harness.templates) == 2


async def test_fails_meanwhile(tmp_path: Path, registry: Registry, come: threading.Event) -> None:
    """A job that fails leaves no thread behind that still fetches."""
    (layer, *_) = (one["digest"] for one in IMAGE.document["layers"])
    registry.replace_blob(layer, None)
    async with Harness(tmp_path, registry) as harness:
        bringing = asyncio.ensure_future(harness.bring())
        await until(lambda: {layer, digest(SAID)} <= {*registry.fetched()})
        await asyncio.sleep(0.2)  # in which the job would fail
        assert not bringing.done()
        come.set()
        with pytest.raises(NotFoundError):
            await bringing
        assert harness.services.ledger.attestations.all()


async def test_cancelled_meanwhile(
    tmp_path: Path, registry: Registry, come: threading.Event
) -> None:
    """A job that is cancelled waits for no attestation."""
    (layer, *_) = (one["digest"] for one in IMAGE.document["layers"])
    registry.faults.stalls[layer] = come
    async with Harness(tmp_path, registry) as harness:
        bringing = asyncio.ensure_future(harness.bring())
        await until(lambda: {layer, digest(SAID)} <= {*registry.fetched()})
        bringing.cancel()
        await asyncio.wait([bringing], timeout=10)
        assert bringing.cancelled()
        come.set()


async def test_unreadable(tmp_path: Path, registry: Registry) -> None:
    """An image whose attestations cannot be read is published all the same, and it is told."""
    registry.push(REPOSITORY, "latest", built(IMAGE, b'{"predicateType": "x"}'))
    async with Harness(tmp_path, registry, image="provenance = true") as harness:
        with capture_logs() as logs:
            assert (await harness.bring()).result is Result.PUBLISHED
        assert len(harness.templates) == 1
        (entry,) = [entry for entry in logs if entry["event"] == "attestations not kept"]
        assert "is no in-toto statement" in entry["faults"][0]


async def test_expired(tmp_path: Path, registry: Registry) -> None:
    """What is known of an image goes when no template of it is left."""
    registry.push(REPOSITORY, "latest", built(IMAGE, statement(IMAGE.digest, SPDX)))
    async with Harness(tmp_path, registry) as harness:
        await harness.bring()
        ledger = harness.services.ledger
        ledger.expire()
        assert len(ledger.attestations.all()) == 1
        (template,) = ledger.templates()
        ledger.forget(template.target, template.name)
        ledger.expire()
        assert not ledger.attestations.all()


def test_off_by_default() -> None:
    """Nobody gets files beside templates who did not ask for them."""
    assert not ImageSettings(repository="ghcr.io/org/image").provenance
