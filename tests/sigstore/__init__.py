"""Signatures as cosign writes them, by an independent Fulcio, Rekor and trust root.

    python -m tests.sigstore      signs everything in REQUESTS anew, into tests/data/sigstore

`sign.js` runs `@sigstore/mock` (npm), which knows nothing of syncd and of sigstore-python.  What it
signed is kept in tests/data, so that only who signs anew needs node and npm.  The forms around it
are cosign's: https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md,
ATTESTATION_SPEC.md and BUNDLE_SPEC.md.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.archives import file
from tests.images import Content, describe, digest, document, image, index, layer

FOLDER = Path(__file__).parent
DATA = FOLDER.parent / "data/sigstore"
ROOT = DATA / "trusted_root.json"

IDENTITY = "https://github.com/org/repo/.github/workflows/build.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
SIGN = "https://sigstore.dev/cosign/sign/v1"
SLSA = "https://slsa.dev/provenance/v1"

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
_DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"

# Not compressed: the bytes, and so the digests, are the same with each build of zlib.
IMAGE = image(layer(file("text", b"signed"), compression=""))
INDEX = index(IMAGE, image(layer(compression=""), platform="linux/arm64"))
OTHER = image(layer(file("text", b"another"), compression=""))


def simple(subject: str, annotations: Mapping[str, str] | None = None) -> bytes:
    """Return the payload of a simple signing (SIGNATURE_SPEC.md, "Payload")."""
    critical = {
        "identity": {"docker-reference": "registry.test/org/repo/image"},
        "image": {"docker-manifest-digest": subject},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": dict(annotations or {}) or None}).encode()


def statement(
    subject: str, predicate: str = SIGN, annotations: Mapping[str, str] | None = None
) -> bytes:
    """Return an in-toto statement, as cosign 3 makes it."""
    algorithm, _, encoded = subject.partition(":")
    named = {"digest": {algorithm: encoded}, "annotations": dict(annotations or {})}
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [named],
            "predicateType": predicate,
            "predicate": {"builder": "test"} if predicate != SIGN else {},
        }
    ).encode()


@dataclass(frozen=True)
class Request:
    """What `sign.js` is to sign, and in whose name."""

    payload: bytes
    identity: str = IDENTITY
    issuer: str = ISSUER
    late: int = 0
    rekor: int = 1

    @property
    def form(self) -> dict[str, Any]:
        """The request as `sign.js` takes it."""
        kind = "hashedrekord" if b'"critical"' in self.payload else "dsse"
        content = base64.b64encode(self.payload).decode()
        asked = {"identity": self.identity, "issuer": self.issuer, "late": self.late}
        asked["rekor"] = self.rekor
        return {**asked, "kind": kind, "content": content}


_TREE = "https://github.com/org/repo/.github/workflows/build.yml@refs/heads"
REQUESTS = {
    "simple image": Request(simple(IMAGE.digest)),
    "simple index": Request(simple(INDEX.digest)),
    "simple annotated": Request(simple(IMAGE.digest, {"stage": "tested"})),
    "simple other": Request(simple(OTHER.digest)),
    "simple stranger": Request(simple(IMAGE.digest), identity=f"{_TREE}/fork"),
    "simple issuer": Request(simple(IMAGE.digest), issuer="https://accounts.example.org"),
    "simple late": Request(simple(IMAGE.digest), late=60),
    "bundle image": Request(statement(IMAGE.digest)),
    "bundle index": Request(statement(INDEX.digest)),
    "bundle annotated": Request(statement(IMAGE.digest, annotations={"stage": "tested"})),
    "bundle other": Request(statement(OTHER.digest)),
    "bundle stranger": Request(statement(IMAGE.digest), identity=f"{_TREE}/fork"),
    "bundle issuer": Request(statement(IMAGE.digest), issuer="https://accounts.example.org"),
    "bundle of Rekor 2": Request(statement(IMAGE.digest), rekor=2),
    "bundle late": Request(statement(IMAGE.digest), late=60),
    "provenance": Request(statement(IMAGE.digest, SLSA)),
    "provenance stranger": Request(statement(IMAGE.digest, SLSA), identity=f"{_TREE}/fork"),
}


def sign(requests: Mapping[str, Request]) -> dict[str, Any]:
    """Have `sign.js` sign; return the trust root and what it signed, by name."""
    asked = json.dumps({name: request.form for name, request in requests.items()})
    if not (FOLDER / "node_modules").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=FOLDER, check=True)
    done = subprocess.run(
        ["node", str(FOLDER / "sign.js")], input=asked, capture_output=True, text=True, check=True
    )
    signed: dict[str, Any] = json.loads(done.stdout)
    return signed


def recorded(name: str) -> Signed:
    """Return one of the kept signatures."""
    return Signed(REQUESTS[name].payload, json.loads((DATA / "signatures.json").read_text())[name])


@dataclass(frozen=True)
class Signed:
    """A payload and what Fulcio and Rekor gave for it."""

    payload: bytes
    parts: dict[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        """Rekor's answer without the entry's name."""
        (entry,) = self.parts["entry"].values()
        return dict(entry)

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of a layer (SIGNATURE_SPEC.md, "Properties")."""
        entry, der = self.entry, self.parts["certificate"]
        lines = [der[at : at + 64] for at in range(0, len(der), 64)]
        promise = {
            "SignedEntryTimestamp": entry["verification"]["signedEntryTimestamp"],
            "Payload": {key: entry[key] for key in ("body", "integratedTime", "logIndex", "logID")},
        }
        pem = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
        return {
            "dev.cosignproject.cosign/signature": self.parts["signature"],
            "dev.sigstore.cosign/certificate": pem,
            "dev.sigstore.cosign/chain": self.parts["chain"],
            "dev.sigstore.cosign/bundle": json.dumps(promise),
        }

    @property
    def layer(self) -> tuple[dict[str, Any], bytes]:
        """The layer of cosign 2's signature: its descriptor and its content."""
        return {**describe(_SIMPLE, self.payload), "annotations": self.annotations}, self.payload

    @property
    def attestation(self) -> tuple[dict[str, Any], bytes]:
        """The layer of cosign 2's attestation (ATTESTATION_SPEC.md)."""
        content = json.dumps(envelope(self.payload, self.parts["signature"])).encode()
        notes = {k: v for k, v in self.annotations.items() if not k.endswith("/signature")}
        notes["dev.cosignproject.cosign/signature"] = ""
        return {**describe(_DSSE, content), "annotations": notes}, content

    @property
    def bundle(self) -> dict[str, Any]:
        """The Sigstore bundle, version 0.3."""
        if "timestamp" in self.parts:
            stamps = {"rfc3161Timestamps": [{"signedTimestamp": self.parts["timestamp"]}]}
            return self._bundle(self.parts["entry"], timestampVerificationData=stamps)
        entry, body = self.entry, json.loads(base64.b64decode(self.entry["body"]))
        proof = entry["verification"]["inclusionProof"]
        logged = {
            "logIndex": str(entry["logIndex"]),
            "logId": {"keyId": _base64(bytes.fromhex(entry["logID"]))},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "integratedTime": str(entry["integratedTime"]),
            "inclusionPromise": {
                "signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]
            },
            "inclusionProof": {
                "logIndex": str(proof["logIndex"]),
                "rootHash": _base64(bytes.fromhex(proof["rootHash"])),
                "treeSize": str(proof["treeSize"]),
                "hashes": [_base64(bytes.fromhex(one)) for one in proof["hashes"]],
                "checkpoint": {"envelope": proof["checkpoint"]},
            },
            "canonicalizedBody": entry["body"],
        }
        return self._bundle(logged)

    def _bundle(self, logged: object, **material: object) -> dict[str, Any]:
        return {
            "mediaType": _BUNDLE,
            "verificationMaterial": {
                "certificate": {"rawBytes": self.parts["certificate"]},
                "tlogEntries": [logged],
                **material,
            },
            "dsseEnvelope": envelope(self.payload, self.parts["signature"]),
        }


def envelope(payload: bytes, signature: str) -> dict[str, Any]:
    """Return a DSSE envelope."""
    return {
        "payload": _base64(payload),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": signature, "keyid": ""}],
    }


def pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature is over (DSSE's protocol.md)."""
    return b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


class Key:
    """A key pair as `cosign generate-key-pair` makes it, or another one that is given."""

    def __init__(self, private: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.private = private or ec.generate_private_key(ec.SECP256R1())

    def write(self, path: Path) -> Path:
        """Write the public key, as cosign.pub."""
        pem = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        path.write_bytes(pem)
        return path

    def sign(self, content: bytes) -> str:
        """Sign with ECDSA and SHA-256, as cosign 2 does with its own keys."""
        return _base64(self.private.sign(content, ec.ECDSA(SHA256())))

    def certificate(self, identity: str, issuer: str) -> bytes:
        """Return a certificate for an identity that the key signed itself."""
        now, name = datetime.now(UTC), x509.Name([])
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        made = (
            x509.CertificateBuilder(
                name, name, self.private.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now - timedelta(days=365))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), True
            )
            .add_extension(usage, True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(
                x509.UnrecognizedExtension(
                    x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), issuer.encode()
                ),
                False,
            )
        )
        return made.sign(self.private, SHA256()).public_bytes(Encoding.DER)

    def layer(self, payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the layer of `cosign sign --key` of cosign 2."""
        notes = {"dev.cosignproject.cosign/signature": self.sign(payload)}
        return {**describe(_SIMPLE, payload), "annotations": notes}, payload

    def bundle(self, payload: bytes) -> dict[str, Any]:
        """Return the bundle of `cosign sign --key` of cosign 3, without the log."""
        return {
            "mediaType": _BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "aGludA=="}, "tlogEntries": []},
            "dsseEnvelope": envelope(payload, self.sign(pre_authentication(payload))),
        }


class Pushes(Protocol):
    """A registry, the double or a real one."""

    def push(self, repository: str, tag: str, content: Content, /) -> str:
        """Let `tag` point at an image or index; return its reference."""


def attach_tag(
    registry: Pushes,
    repository: str,
    subject: str,
    *layers: tuple[dict[str, Any], bytes],
    suffix: str = "sig",
) -> str:
    """Push signatures as cosign 2 does, under the tag `sha256-HEX.sig`; return the reference."""
    config = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor for descriptor, _ in layers],
    }
    blobs = {digest(content): content for _, content in layers} | {digest(config): config}
    tag = f"{subject.replace(':', '-')}.{suffix}"
    return registry.push(repository, tag, document(manifest, blobs))


def referrer(subject: Content, bundle: object, **fields: Any) -> Content:
    """Return the manifest by which cosign 3 attaches a bundle (BUNDLE_SPEC.md)."""
    content = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": _BUNDLE,
        "config": describe(_EMPTY, b"{}"),
        "layers": [describe(_BUNDLE, content)],
        "subject": subject.descriptor,
        "annotations": {"dev.sigstore.bundle.content": "dsse-envelope"},
        **fields,
    }
    return document(manifest, {digest(content): content, digest(b"{}"): b"{}"})


def attach_referrer(registry: Pushes, repository: str, subject: Content, *bundles: object) -> str:
    """Push bundles as cosign 3 does where a registry has no list: with a tag that lists them.

    Return the reference of that tag.
    """
    pushed = [referrer(subject, bundle) for bundle in bundles]
    blobs = {key: blob for content in pushed for key, blob in content.blobs.items()}
    fields = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**content.descriptor, "artifactType": _BUNDLE} for content in pushed],
    }
    return registry.push(repository, subject.digest.replace(":", "-"), document(fields, blobs))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
