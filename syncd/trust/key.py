"""Signatures by a bare public key: cosign's `--key`.

The key's owner alone vouches: no certificate, no log, so that nothing is known of when it was
signed.  `cryptography` verifies; this module only picks the algorithm that fits the key.

Source: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md, "Signature Schemes"
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from syncd.errors import EvidenceError, TrustError
from syncd.trust.evidence import Evidence
from syncd.trust.policy import read_file

_OWN_HASH: dict[str, HashAlgorithm] = {"secp384r1": SHA384(), "secp521r1": SHA512()}
_SMALLEST_RSA = 2048


@dataclass(frozen=True, slots=True)
class Key:
    """A public key; `name` is its SHA-256, by which it is told and remembered."""

    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | Ed25519PublicKey
    name: str

    @classmethod
    def load(cls, path: Path) -> Key:
        """Read a PEM file such as cosign.pub; raise TrustError when it is no key for signatures."""
        try:
            public = load_pem_public_key(read_file(path))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise TrustError(f"{path} has no public key in PEM", "write cosign.pub there") from exc
        known = ec.EllipticCurvePublicKey, rsa.RSAPublicKey, Ed25519PublicKey
        if not isinstance(public, known):
            raise TrustError(f"{path} has a key of a kind that cosign does not sign with")
        if isinstance(public, rsa.RSAPublicKey) and public.key_size < _SMALLEST_RSA:
            raise TrustError(f"{path} has an RSA key of fewer than {_SMALLEST_RSA} bits")
        encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(public, f"sha256:{hashlib.sha256(encoded).hexdigest()}")

    def verify(self, evidence: Evidence) -> None:
        """Raise EvidenceError unless one of the signatures is by this key."""
        for signature in evidence.signatures:
            if any(self._fits(signature, evidence.signed, algorithm) for algorithm in self._hashes):
                return
        raise EvidenceError(f"is not by the key {self.name}")

    @property
    def _hashes(self) -> Iterator[HashAlgorithm]:
        """SHA-256, which cosign 2 takes for all keys; and the curve's own, as cosign 3 does."""
        yield SHA256()
        if isinstance(self.public, ec.EllipticCurvePublicKey):
            own = _OWN_HASH.get(self.public.curve.name)
            if own is not None:
                yield own

    def _fits(self, signature: bytes, signed: bytes, algorithm: HashAlgorithm) -> bool:
        try:
            if isinstance(self.public, Ed25519PublicKey):
                self.public.verify(signature, signed)
            elif isinstance(self.public, rsa.RSAPublicKey):
                self.public.verify(signature, signed, padding.PKCS1v15(), algorithm)
            else:
                self.public.verify(signature, signed, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return True
