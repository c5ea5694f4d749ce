"""Whole jobs of images that somebody has to vouch for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from syncd.errors import TrustError, TrustRootUnavailableError, UnsignedError, UntrustedError
from syncd.oci.reference import Digest
from syncd.sync.conditions import Current, Failed, Missing
from syncd.sync.job import Cause, Result
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described
from tests.sigstore import (
    IDENTITY,
    IMAGE,
    INDEX,
    ISSUER,
    OTHER,
    ROOT,
    Key,
    attach_referrer,
    attach_tag,
    recorded,
    simple,
)

POLICY = f"""
[image.verify]
identity = "{IDENTITY}"
issuer = "{ISSUER}"
trust_root = "{ROOT}"
"""


def layers() -> set[str]:
    """Return the digests of the layers of the images."""
    return {one["digest"] for image in (IMAGE, OTHER) for one in image.document["layers"]}


async def test_signed(tmp_path: Path, registry: Registry) -> None:
    """A signed image is published, and its template tells who signed, where and when."""
    registry.push(REPOSITORY, "latest", INDEX)
    attach_referrer(registry, REPOSITORY, INDEX, recorded("bundle index").bundle)
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        assert (await harness.bring()).result is Result.PUBLISHED
        answer = await harness.ask("GET", "/api/v1/images")
        (template,) = described(answer, "/api/v1/images")["templates"]
        (voucher,) = template["vouchers"]
        entry = recorded("bundle index").entry
        assert (voucher["identity"], voucher["issuer"]) == (IDENTITY, ISSUER)
        assert (voucher["log_index"], voucher["digest"]) == (entry["logIndex"], INDEX.digest)
        assert voucher["what"] == "a signature"
        page = await (await harness.ask("GET", "/")).text()
        assert f"vouched for: a signature by {IDENTITY} (issuer {ISSUER}), entry" in page
        assert (await harness.bring()).result is Result.UNCHANGED


@pytest.mark.parametrize(
    ("name", "error", "passing"),
    [(None, UnsignedError, True), ("bundle stranger", UntrustedError, False)],
)
async def test_not_trusted(
    tmp_path: Path, registry: Registry, name: str | None, error: type[Exception], passing: bool
) -> None:
    """Of an image that nobody vouches for no layer is fetched and no template made; it is told why.

    An image without any signature may be signed later, so that this may pass.
    """
    registry.push(REPOSITORY, "latest", IMAGE)
    if name:
        attach_referrer(registry, REPOSITORY, IMAGE, recorded(name).bundle)
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        with pytest.raises(error):
            await harness.bring()
        assert harness.templates == []
        assert not layers() & set(registry.fetched())
        (condition,) = harness.services.ledger.conditions.all()
        assert f"there has to be a signature by {IDENTITY} (issuer {ISSUER})" in condition.reason
        assert condition.passing is passing
        attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle image").bundle)
        assert (await harness.bring()).result is Result.PUBLISHED


async def test_other_image_under_the_tag(tmp_path: Path, registry: Registry) -> None:
    """What was signed once says nothing of what the tag means now."""
    registry.push(REPOSITORY, "latest", IMAGE)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle image").bundle)
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        await harness.bring()
        registry.push(REPOSITORY, "latest", OTHER)
        with pytest.raises(UntrustedError):
            await harness.bring()
        assert len(harness.templates) == 1


async def test_policy_comes_later(tmp_path: Path, registry: Registry) -> None:
    """What was published before there was a policy does not count until it passes the policy."""
    registry.push(REPOSITORY, "latest", IMAGE)
    async with Harness(tmp_path, registry) as harness:
        await harness.bring()
    registry.requests.clear()
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        assert await harness.services.engine.look(harness.latest) == {
            "local": Missing(Digest.parse(IMAGE.digest))
        }
        assert not (await harness.services.engine.find(harness.latest)).everywhere
        with pytest.raises(UnsignedError):
            await harness.bring()
        attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle image").bundle)
        outcome = await harness.bring()
        assert outcome.result is Result.UNCHANGED
        (found,) = (await harness.services.engine.look(harness.latest)).values()
        assert isinstance(found, Current)
        assert not layers() & set(registry.fetched())


async def test_key_changes(tmp_path: Path, registry: Registry) -> None:
    """A key that was replaced, or is missing, vouches for nothing any more."""
    key, file = Key(), tmp_path / "cosign.pub"
    key.write(file)
    registry.push(REPOSITORY, "latest", IMAGE)
    attach_tag(registry, REPOSITORY, IMAGE.digest, key.layer(simple(IMAGE.digest)))
    policy = f'[image.verify]\nkey_file = "{file}"\n'
    async with Harness(tmp_path, registry, image=policy) as harness:
        await harness.bring()
        Key().write(file)
        with pytest.raises(UntrustedError, match="is not by the key"):
            await harness.bring()
        file.unlink()
        (found,) = (await harness.services.engine.look(harness.latest)).values()
        assert isinstance(found, Failed)
        assert not found.passing
        with pytest.raises(TrustError, match=r"cosign\.pub"):
            await harness.bring()
        key.write(file)
        assert (await harness.bring()).result is Result.UNCHANGED


async def test_unreachable_trust_root(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the public trust root nothing passes; the failure does, so it is tried again."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    registry.push(REPOSITORY, "latest", IMAGE)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle image").bundle)
    policy = POLICY.replace(f'trust_root = "{ROOT}"', "")
    async with Harness(tmp_path, registry, image=policy) as harness:
        (job,) = await harness.services.worker.submit([harness.latest], Cause.API)
        outcome = await harness.services.worker.finished(job)
        assert outcome.result is Result.FAILED
        assert "Sigstore's trust root cannot be brought up to date" in outcome.message
        (condition,) = harness.services.ledger.conditions.all()
        assert condition.passing
        assert condition.next_try is not None
        assert not layers() & set(registry.fetched())
        with pytest.raises(TrustRootUnavailableError):
            await harness.bring()


async def test_told(tmp_path: Path, registry: Registry) -> None:
    """Whoever verifies an image over HTTP is told who signed it; of no other name is one asked."""
    registry.push(REPOSITORY, "latest", IMAGE)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle stranger").bundle)
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        body = {"ref": str(harness.latest)}
        answer = await harness.ask("POST", "/api/v1/verify", json=body)
        told = described(answer, "/api/v1/verify")
        (image,) = told["images"]
        assert (told["verified"], image["trusted"], image["digest"]) == ([], False, IMAGE.digest)
        (signature,) = image["signatures"]
        assert signature["voucher"]["identity"] == IDENTITY.replace("main", "fork")
        registry.requests.clear()
        body = {"ref": f"{registry.address}/org/other:latest"}
        answer = await harness.ask("POST", "/api/v1/verify", json=body)
        assert answer.status == 404
        assert registry.requests == []


async def test_unwatched_tag(tmp_path: Path, registry: Registry) -> None:
    """A tag that nobody watches is no way around the policy of its repository."""
    registry.push(REPOSITORY, "other", OTHER)
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        with pytest.raises(UnsignedError):
            await harness.bring("other")


async def test_ledger_row(tmp_path: Path, registry: Registry) -> None:
    """A row of what vouched that cannot be read is passed over, and hides no other one."""
    registry.push(REPOSITORY, "latest", IMAGE)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("bundle image").bundle)
    async with Harness(tmp_path, registry, image=POLICY) as harness:
        await harness.bring()
        ledger = harness.services.ledger
        (image,) = ledger.vouched.all()
        for text in ("{", json.dumps([{"what": "a signature"}])):
            ledger._write("INSERT INTO vouched VALUES (?, ?, ?, '', ?, '')", "x", "y", text, text)
        assert [*ledger.vouched.all()] == [image]
