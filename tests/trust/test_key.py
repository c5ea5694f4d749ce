"""What keys verify: every kind of key that cosign signs with, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from syncd.errors import EvidenceError, TrustError
from syncd.trust.claim import Claim
from syncd.trust.evidence import Evidence
from syncd.trust.key import Key


def written(path: Path, private: Any) -> Path:
    """Write a public key as PEM."""
    form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(private.public_key().public_bytes(*form))
    return path


def evidence(*signatures: bytes) -> Evidence:
    """Return a signature of cosign 2 over `payload`."""
    return Evidence(
        "tag", "simple signing", b"payload", b"payload", b"payload", signatures, Claim({})
    )


P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("private", "signature"),
    [
        (P256, P256.sign(b"payload", ec.ECDSA(SHA256()))),
        (P384, P384.sign(b"payload", ec.ECDSA(SHA256()))),
        (P384, P384.sign(b"payload", ec.ECDSA(SHA384()))),
        (P521, P521.sign(b"payload", ec.ECDSA(SHA512()))),
        (RSA, RSA.sign(b"payload", padding.PKCS1v15(), SHA256())),
        (ED25519, ED25519.sign(b"payload")),
    ],
    ids=["P-256", "P-384, SHA-256", "P-384", "P-521", "RSA", "Ed25519"],
)
def test_kinds(tmp_path: Path, private: Any, signature: bytes) -> None:
    """A signature by the key vouches, also among others; one by another key does not."""
    key = Key.load(written(tmp_path / "cosign.pub", private))
    key.verify(evidence(b"none", signature))
    with pytest.raises(EvidenceError, match=f"is not by the key {key.name}"):
        key.verify(evidence(signature[:-1] + bytes([signature[-1] ^ 1])))


@pytest.mark.parametrize(
    ("private", "said"),
    [
        (dsa.generate_private_key(2048), "a kind that cosign does not sign with"),
        (rsa.generate_private_key(65537, 1024), "an RSA key of fewer than 2048 bits"),
    ],
    ids=["DSA", "short RSA"],
)
def test_refused(tmp_path: Path, private: Any, said: str) -> None:
    """A key that is too weak, or that cosign cannot sign with, is refused."""
    with pytest.raises(TrustError, match=said):
        Key.load(written(tmp_path / "cosign.pub", private))
