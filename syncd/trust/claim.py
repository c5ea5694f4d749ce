"""What a signature says: of which image it is, and what it says of it.

Two forms are read: cosign's simple signing, and in-toto statements.  A claim is worth nothing until
the signature over its bytes was verified.

Sources: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md, "Payload";
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from syncd.errors import EvidenceError, ImageError
from syncd.oci import parse_json

SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
"""The predicate of a statement that is a plain signature: cosign 3 writes it."""
IN_TOTO = "application/vnd.in-toto+json"
"""The payload type of a DSSE envelope with a statement."""

_SIMPLE = ("cosign container image signature", "atomic container signature")
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_SUBJECTS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed: of the images with these digests, with the annotations of each.

    `predicate` is the type of what is said; SIGNATURE for a plain signature.
    """

    subjects: Mapping[str, Mapping[str, Any]]
    predicate: str = SIGNATURE

    @property
    def what(self) -> str:
        """What it is, in words."""
        if self.predicate == SIGNATURE:
            return "a signature"
        return f"an attestation of type {self.predicate:.200}"


def simple_claim(payload: bytes) -> Claim:
    """Return what a simple-signing payload says; raise EvidenceError if it is none."""
    fields = _object(payload)
    critical = _mapping(fields.get("critical"), "critical")
    kind, image = critical.get("type"), _mapping(critical.get("image"), "critical.image")
    if kind not in _SIMPLE:
        raise EvidenceError(f"is signed as {kind!r:.100}, not as a container image")
    digest = image.get("docker-manifest-digest")
    if not isinstance(digest, str):
        raise EvidenceError("names no image")
    return Claim({digest: _mapping(fields.get("optional") or {}, "optional")})


def statement_claim(payload: bytes) -> Claim:
    """Return what an in-toto statement says; raise EvidenceError if it is none."""
    fields = _object(payload)
    if fields.get("_type") not in _STATEMENTS:
        raise EvidenceError(f"is no in-toto statement but {fields.get('_type')!r:.100}")
    predicate, subjects = fields.get("predicateType"), fields.get("subject")
    if not isinstance(predicate, str) or not isinstance(subjects, list):
        raise EvidenceError("is an in-toto statement without a predicate or a subject")
    if len(subjects) > _SUBJECTS_MAX:
        raise EvidenceError(f"has more than {_SUBJECTS_MAX} subjects")
    found: dict[str, Mapping[str, Any]] = {}
    for subject in subjects:
        named = _mapping(subject, "subject")
        notes = _mapping(named.get("annotations") or {}, "subject.annotations")
        for algorithm, encoded in _mapping(named.get("digest"), "subject.digest").items():
            found[f"{algorithm}:{encoded}"] = notes
    return Claim(found, predicate)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        return parse_json(payload, "its payload")
    except ImageError as exc:
        raise EvidenceError(exc.what) from exc


def _mapping(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EvidenceError(f"has no {place} in its payload")
    return value
