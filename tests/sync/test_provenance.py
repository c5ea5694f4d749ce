"""What images say of themselves, beside their templates: in the ledger, and as files."""

from __future__ import annotations

import json
from pathlib import Path

from structlog.testing import capture_logs

from syncd.config.settings import ImageSettings
from syncd.sync.job import Result
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described
from tests.sigstore import IMAGE, OTHER, SLSA, attach_referrer, recorded, statement
from tests.trust.test_attestations import SPDX, built


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
