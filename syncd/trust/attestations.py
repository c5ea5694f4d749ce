"""The attestations that an image brought: its SBOM, and how it was built.

buildx lists them in the image's index, so that the index's digest covers them; cosign and GitHub
attach them as they attach signatures.  They are kept as they were brought, and nobody has verified
them unless a policy wants one.  There is a bound on their number and on their bytes.

Sources: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md;
https://github.com/sigstore/cosign/blob/main/specs/ATTESTATION_SPEC.md and BUNDLE_SPEC.md
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from syncd.errors import EvidenceError, ImageError, RegistryError
from syncd.oci import OCI_MANIFEST, Descriptor, parse_json
from syncd.trust.attachments import Attachments, Begin
from syncd.trust.claim import IN_TOTO, SIGNATURE, statement_claim
from syncd.trust.subject import Subject

KEPT_MAX = 16
"""Attestations of one image that are kept."""
BYTES_MAX = 16 << 20
"""Bytes of the attestations of one image that are kept."""

_AT_ONCE = 3  # places that are asked at a time what they have: most have nothing
_KIND, _OF = "vnd.docker.reference.type", "vnd.docker.reference.digest"

T = TypeVar("T")

_free = threading.BoundedSemaphore(_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What is said of an image, as it was brought: a bundle, an envelope, or a bare statement.

    `predicate` is the type of what is said, and `place` is where it lay in the registry.
    """

    predicate: str
    place: str
    content: bytes = field(repr=False)


@dataclass(slots=True)
class Brought:
    """The attestations of an image, and sentences on those that were not kept."""

    kept: list[Attestation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def attestations_of(subject: Subject, top: Descriptor) -> Brought:
    """Return the attestations of an image; `top` describes what its tag means.

    Raise RegistryError when the registry does not answer.
    """
    brought, left, beyond = Brought(), BYTES_MAX, 0
    with _Ahead() as ahead:
        for found in _all(subject, top, brought.faults, ahead.begin):
            if len(brought.kept) == KEPT_MAX or len(found.content) > left:
                beyond += 1
                continue
            left -= len(found.content)
            brought.kept.append(found)
    if beyond:
        brought.faults.append(
            f"{beyond} more attestations are not kept: beyond {KEPT_MAX} or {BYTES_MAX} bytes"
        )
    return brought


class _Ahead:
    """Asks with the threads that are free; there are three for all images together.

    A silent registry keeps nobody else waiting: without a thread, each thing is asked when its
    answer is wanted.
    """

    def __init__(self) -> None:
        self._taken = sum(_free.acquire(blocking=False) for _ in range(_AT_ONCE))
        self._threads = ThreadPoolExecutor(max(self._taken, 1), thread_name_prefix="attestations")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._taken:
            _free.release(self._taken)

    def begin(self, ask: Callable[[], T]) -> Callable[[], T]:
        """Have a thread ask, if there is one; return what gives the answer."""
        if not self._taken:
            return ask
        try:
            return self._threads.submit(copy_context().run, ask).result
        except RuntimeError:
            return ask


def _all(
    subject: Subject, top: Descriptor, faults: list[str], begin: Begin
) -> Iterator[Attestation]:
    attachments = [
        Attachments(subject.repository, subject.reference, digest, begin)
        for digest in subject.digests
    ]
    found = [attached.found("") for attached in attachments]
    if len(subject.digests) > 1:  # what an index lists
        yield from _listed(subject, top, faults)
    for digest, attached, evidences in zip(subject.digests, attachments, found, strict=True):
        for evidence in evidences:
            if evidence.claim.predicate != SIGNATURE and str(digest) in evidence.claim.subjects:
                yield Attestation(evidence.claim.predicate, evidence.place, evidence.content)
        faults += attached.unread


def _listed(subject: Subject, top: Descriptor, faults: list[str]) -> Iterator[Attestation]:
    """Yield what the image's own index lists beside its manifest."""
    entries = _fields(subject, top).get("manifests", [])
    for entry in entries if isinstance(entries, list) else []:
        notes = entry.get("annotations") if isinstance(entry, dict) else None
        if not isinstance(notes, dict) or notes.get(_KIND) != "attestation-manifest":
            continue
        if str(notes.get(_OF)) not in [str(digest) for digest in subject.digests]:
            continue
        try:
            manifest = Descriptor.parse(entry, "an attestation")
            place = f"manifest {manifest.digest}"
            layers = _fields(subject, manifest).get("layers", [])
            for layer in layers if isinstance(layers, list) else []:
                described = Descriptor.parse(layer, place)
                if described.media_type != IN_TOTO:
                    continue
                content = subject.repository.document(described)
                yield Attestation(statement_claim(content).predicate, place, content)
        except (RegistryError, ImageError) as exc:
            if exc.temporary:
                raise
            what = exc.what if not isinstance(exc, EvidenceError) else f"an attestation {exc.what}"
            faults.append(what)


def _fields(subject: Subject, wanted: Descriptor) -> dict[str, Any]:
    content = subject.repository.document(wanted)
    return parse_json(content, f"{OCI_MANIFEST} {wanted.digest}")
