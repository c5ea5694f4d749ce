"""Which attestations of an image are found, and within which bounds."""

from __future__ import annotations

import json
from typing import Any

from syncd.oci import AnonymousAccess, Descriptor, Digest, Reference
from syncd.oci.registry import Registry as Client
from syncd.trust import Subject, attestations_of
from syncd.trust.attestations import KEPT_MAX
from tests.fakes.registry import Registry
from tests.images import Content, describe, digest, document
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


def brought(registry: Registry, content: Content) -> tuple[list[tuple[str, str]], list[str]]:
    """Return predicates and places of an image's attestations, and what is said of the others."""
    registry.push(REPOSITORY, "latest", content)
    name = Reference.parse(f"{registry.address}/{REPOSITORY}:latest")
    client = Client(name, AnonymousAccess(registry.address, plain_http=True))
    digests = tuple(dict.fromkeys(map(Digest.parse, (content.digest, IMAGE.digest))))
    found = attestations_of(
        Subject(name, client, digests), Descriptor.parse(content.descriptor, "the image")
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
