"""Which attestations of an image are found, and within which bounds."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
import structlog

from syncd.errors import RegistryUnavailableError
from syncd.oci import OCI_MANIFEST, AnonymousAccess, Descriptor, Digest, Reference
from syncd.oci.registry import Registry as Client
from syncd.oci.registry import Timeouts
from syncd.trust import Subject, attestations, attestations_of
from syncd.trust.attestations import KEPT_MAX, _Ahead
from tests.fakes.registry import Registry
from tests.images import Content, describe, digest, document
from tests.processes import no_thread
from tests.sigstore import (
    IMAGE,
    IN_TOTO,
    OTHER,
    SLSA,
    attach_referrer,
    attach_tag,
    recorded,
    statement,
)
from tests.waiting import until

REPOSITORY = "org/repo/image"
SPDX = "https://spdx.dev/Document"


def built(image: Content, *statements: bytes, of: str = "") -> Content:
    """Return the index that buildx makes of an image and of its attestations.

    Source: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
    """
    config = b"{}"
    layers = [
        {
            **describe(IN_TOTO, one),
            "annotations": {"in-toto.io/predicate-type": json.loads(one)["predicateType"]},
        }
        for one in statements
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    }
    blobs = {digest(one): one for one in (*statements, config)}
    attestation = document(manifest, blobs)
    notes = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": of or image.digest,
    }
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries: list[dict[str, Any]] = [
        {**image.descriptor, "platform": {"os": "linux", "architecture": "amd64"}},
        {**attestation.descriptor, "platform": unknown, "annotations": notes},
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    fields = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    return document(fields, image.blobs | attestation.blobs)


def brought(
    registry: Registry, content: Content, called: dict[str, Any] | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return predicates and places of an image's attestations, and what is said of the others."""
    registry.push(REPOSITORY, "latest", content)
    name = Reference.parse(f"{registry.address}/{REPOSITORY}:latest")
    access = AnonymousAccess(registry.address, plain_http=True)
    client = Client(name, access, timeouts=Timeouts(attempts=1))
    digests = tuple(dict.fromkeys(map(Digest.parse, (content.digest, IMAGE.digest))))
    found = attestations_of(
        Subject(name, client, digests), Descriptor.parse(called or content.descriptor, "the image")
    )
    return [(one.predicate, one.place.split()[0]) for one in found.kept], found.faults


def test_buildx(registry: Registry) -> None:
    """What buildx lists in the image's index is found, as far as it is about the image."""
    made = built(IMAGE, statement(IMAGE.digest, SPDX), statement(IMAGE.digest, SLSA))
    assert brought(registry, made) == ([(SPDX, "manifest"), (SLSA, "manifest")], [])
    foreign = built(IMAGE, statement(IMAGE.digest, SPDX), of=OTHER.digest)
    assert brought(registry, foreign) == ([], [])


def test_attached(registry: Registry) -> None:
    """What cosign attached is found in both of its forms, and signatures are not."""
    bundles = (recorded(name).bundle for name in ("bundle image", "provenance", "bundle other"))
    attach_referrer(registry, REPOSITORY, IMAGE, *bundles)
    layer = recorded("provenance stranger").attestation
    attach_tag(registry, REPOSITORY, IMAGE.digest, layer, suffix="att")
    kept, faults = brought(registry, IMAGE)
    assert (kept, faults) == ([(SLSA, "referrer"), (SLSA, "tag")], [])


async def test_side_by_side(registry: Registry) -> None:
    """What most images lack is asked for at once, by one request each."""
    (named, at) = IMAGE.digest, IMAGE.digest.replace(":", "-")
    asked = threading.Event()
    registry.faults.stalls |= dict.fromkeys((named, f"{at}.sig", f"{at}.att"), asked)
    finding = asyncio.ensure_future(asyncio.to_thread(brought, registry, IMAGE))
    try:
        await until(lambda: len(registry.requests) == 3)
    finally:
        asked.set()
    assert await finding == ([], [])
    place = f"/v2/{REPOSITORY}"
    assert sorted(registry.requests) == [
        ("GET", f"{place}/manifests/{at}"),
        ("GET", f"{place}/manifests/{at}.att"),
        ("GET", f"{place}/manifests/{at}.sig"),
        ("GET", f"{place}/referrers/{named}"),
    ]


def test_no_thread(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others have all threads, one thing is asked after the other, with the same result."""
    monkeypatch.setattr(attestations, "_free", threading.BoundedSemaphore(1))
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("provenance").bundle)
    layer = recorded("provenance stranger").attestation
    attach_tag(registry, REPOSITORY, IMAGE.digest, layer, suffix="att")
    with attestations._free:
        assert brought(registry, IMAGE) == ([(SLSA, "referrer"), (SLSA, "tag")], [])
    assert brought(registry, IMAGE) == ([(SLSA, "referrer"), (SLSA, "tag")], [])
    assert attestations._free.acquire(blocking=False)  # it was given back


def test_thread_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no thread left, it is as where others have all."""
    with monkeypatch.context() as refused, _Ahead() as ahead:
        refused.setattr(threading.Thread, "start", no_thread)
        assert ahead.begin(lambda: "answer")() == "answer"
    assert all(attestations._free.acquire(blocking=False) for _ in range(3))
    attestations._free.release(3)


def test_context() -> None:
    """What a thread logs is told of the same job."""
    with structlog.contextvars.bound_contextvars(job="one"), _Ahead() as ahead:
        assert ahead.begin(structlog.contextvars.get_contextvars)() == {"job": "one"}


async def test_index_side_by_side(registry: Registry) -> None:
    """A thread that has an answer asks on, for what the image's manifest has beside its index."""
    registry.lists_referrers = True
    made = built(IMAGE, statement(IMAGE.digest, SPDX))
    of_index, of_image = (one.digest.replace(":", "-") for one in (made, IMAGE))
    answered = threading.Event()
    stalled = (f"{of_index}.sig", f"{of_index}.att", f"{of_image}.sig")
    registry.faults.stalls |= dict.fromkeys(stalled, answered)
    finding = asyncio.ensure_future(asyncio.to_thread(brought, registry, made))
    try:
        await until(
            lambda: set(stalled) <= {path.rpartition("/")[2] for _, path in registry.requests}
        )
    finally:
        answered.set()
    assert await finding == ([(SPDX, "manifest")], [])


def test_index_that_is_called_a_manifest(registry: Registry) -> None:
    """What an index lists is found whatever the registry calls the index."""
    made = built(IMAGE, statement(IMAGE.digest, SPDX))
    called = {**made.descriptor, "mediaType": OCI_MANIFEST}
    assert brought(registry, made, called) == ([(SPDX, "manifest")], [])


def test_silent(registry: Registry) -> None:
    """A registry that fails is told of, and leaves no thread behind."""
    registry.faults.refusals = [(503, {}, b"")] * 9
    with pytest.raises(RegistryUnavailableError):
        brought(registry, IMAGE)
    assert not [one for one in threading.enumerate() if one.name.startswith("attestations")]


def test_bounds(registry: Registry) -> None:
    """Of many attestations the first are kept, and it is said how many are not."""
    many = [statement(IMAGE.digest, f"https://example.org/{n}") for n in range(KEPT_MAX + 3)]
    kept, faults = brought(registry, built(IMAGE, *many))
    assert len(kept) == KEPT_MAX
    assert faults[0].startswith("3 more attestations are not kept")


def test_broken(registry: Registry) -> None:
    """An attestation that is none, or is not there, keeps nobody from the others."""
    lost, spoilt = statement(IMAGE.digest, SPDX), b'{"predicateType": "x"}'
    made = built(IMAGE, spoilt, lost)
    registry.push(REPOSITORY, "latest", made)
    attach_referrer(registry, REPOSITORY, IMAGE, recorded("provenance").bundle)
    registry.replace_blob(digest(lost), None)
    kept, faults = brought_of(registry, made)
    assert kept == [(SLSA, "referrer")]
    assert len(faults) == 1
    assert "is no in-toto statement" in faults[0]


def brought_of(registry: Registry, content: Content) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what `brought` does of an image that was pushed before."""
    pushed = registry.repositories[REPOSITORY].blobs
    kept = {key: blob for key, blob in content.blobs.items() if key in pushed}
    return brought(registry, Content(content.descriptor, kept))
