"""A signature as it lies in a registry, taken apart but not yet believed.

Three forms become one value: cosign 2's signature (a payload, and annotations with the signature,
the certificate and Rekor's promise), cosign 2's attestation (the same around a DSSE envelope), and
the Sigstore bundle of cosign 3 and of GitHub's attestations.  Rekor's promise becomes a bundle,
too, so that one library verifies all of them.

Sources: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md and
ATTESTATION_SPEC.md, BUNDLE_SPEC.md;
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md;
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from syncd.errors import EvidenceError, ImageError
from syncd.oci import parse_json
from syncd.trust.claim import IN_TOTO, Claim, simple_claim, statement_claim

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
"""What the media types of all versions of a bundle begin with."""

Form = Literal["simple signing", "DSSE envelope", "Sigstore bundle"]

_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_PROMISE = "dev.sigstore.cosign/bundle"
_SIGNATURES_MAX = 16
# The library's model has to have one; where there is a promise, nobody looks at it.
_NO_PROOF = {"logIndex": "0", "rootHash": "", "treeSize": "1", "hashes": []}
_PEM = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signature: where it lies, what it is about, and what speaks for it.

    `content` is the document as it lies there.  `signed` are the bytes that `signatures` are over,
    and `claim` is what `payload` says.  `bundle`
    is what the library sigstore verifies, None where no certificate came with the signature;
    `promised` tells that the bundle has Rekor's promise in place of a proof.
    """

    place: str
    form: Form
    content: bytes
    payload: bytes
    signed: bytes
    signatures: tuple[bytes, ...]
    claim: Claim
    bundle: bytes | None = None
    promised: bool = False


def of_layer(place: str, media_type: str, content: bytes, notes: Mapping[str, str]) -> Evidence:
    """Return the signature that a layer of a signature's manifest is; raise EvidenceError.

    `notes` are the annotations of the layer.
    """
    if media_type.startswith(BUNDLE):
        return _of_bundle(place, content)
    if media_type == DSSE_ENVELOPE:
        envelope = _object(content)
        payload, signed, signatures = _opened(envelope)
        bundle = _promised(notes, {"dsseEnvelope": envelope})
        claim = statement_claim(payload)
        return Evidence(
            place,
            "DSSE envelope",
            content,
            payload,
            signed,
            signatures,
            claim,
            bundle,
            bundle is not None,
        )
    if media_type != SIMPLE_SIGNING:
        raise EvidenceError(f"is of the type {media_type!r:.100}, which is no signature's")
    signature = _decoded(notes.get(_SIGNATURE))
    bundle = _promised(notes, {"messageSignature": {"signature": _encoded(signature)}})
    claim = simple_claim(content)
    return Evidence(
        place,
        "simple signing",
        content,
        content,
        content,
        (signature,),
        claim,
        bundle,
        bundle is not None,
    )


def _of_bundle(place: str, content: bytes) -> Evidence:
    fields = _object(content)
    envelope = fields.get("dsseEnvelope")
    if not isinstance(envelope, dict):
        raise EvidenceError("is a bundle without a DSSE envelope: it says of no image")
    payload, signed, signatures = _opened(envelope)
    material = fields.get("verificationMaterial")
    by_key = isinstance(material, dict) and "publicKey" in material
    return Evidence(
        place,
        "Sigstore bundle",
        content,
        payload,
        signed,
        signatures,
        statement_claim(payload),
        None if by_key else content,
    )


def _opened(envelope: Mapping[str, Any]) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Return the payload of a DSSE envelope, the bytes that were signed, and the signatures."""
    kind, signatures = envelope.get("payloadType"), envelope.get("signatures")
    if kind != IN_TOTO:
        raise EvidenceError(f"is an envelope of the type {kind!r:.100}, not {IN_TOTO}")
    if not isinstance(signatures, list) or not 0 < len(signatures) <= _SIGNATURES_MAX:
        raise EvidenceError("is an envelope without signatures, or with too many")
    payload = _decoded(envelope.get("payload"))
    head = f"DSSEv1 {len(IN_TOTO)} {IN_TOTO} {len(payload)} ".encode()
    found = tuple(_decoded(one.get("sig") if isinstance(one, dict) else None) for one in signatures)
    return payload, head + payload, found


def _promised(notes: Mapping[str, str], content: Mapping[str, Any]) -> bytes | None:
    """Return the bundle of a signature with a certificate and Rekor's promise; None without these.

    A certificate alone proves no time at which it was used, so that it is worth nothing.
    """
    certificate, promise = notes.get(_CERTIFICATE), notes.get(_PROMISE)
    if certificate is None or promise is None:
        return None
    fields = _object(promise.encode())
    payload = fields.get("Payload")
    if not isinstance(payload, dict):
        raise EvidenceError("has a promise of Rekor without its payload")
    body = _object(_decoded(payload.get("body")))
    try:
        log_id = _encoded(bytes.fromhex(str(payload.get("logID"))))
    except ValueError as exc:
        raise EvidenceError("has a promise of Rekor without the log's id") from exc
    entry = {
        "logIndex": str(payload.get("logIndex")),
        "logId": {"keyId": log_id},
        "kindVersion": {"kind": str(body.get("kind")), "version": str(body.get("apiVersion"))},
        "integratedTime": str(payload.get("integratedTime")),
        "inclusionPromise": {"signedEntryTimestamp": fields.get("SignedEntryTimestamp")},
        "inclusionProof": _NO_PROOF,
        "canonicalizedBody": payload.get("body"),
    }
    material = {
        "certificate": {"rawBytes": _encoded(_der(certificate))},
        "tlogEntries": [entry],
    }
    media_type = f"{BUNDLE}+json;version=0.1"
    return json.dumps(
        {"mediaType": media_type, "verificationMaterial": material, **content}
    ).encode()


def _der(pem: str) -> bytes:
    """Return the first certificate of a PEM text (RFC 7468)."""
    _, begin, rest = pem.partition(_PEM[0])
    body, end, _ = rest.partition(_PEM[1])
    if not begin or not end:
        raise EvidenceError("has a certificate that is not PEM")
    return _decoded("".join(body.split()))


def _object(content: bytes) -> dict[str, Any]:
    try:
        return parse_json(content, "it")
    except ImageError as exc:
        raise EvidenceError(exc.what) from exc


def _decoded(text: object) -> bytes:
    try:
        if isinstance(text, str) and text:
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise EvidenceError("has a part that is not base64") from exc
    raise EvidenceError("lacks its signature, or another part")


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
