"""Signatures by an identity: a certificate of Fulcio, an entry of Rekor, verified by `sigstore`.

The library verifies the certificate and its time, the log's entry, the signature, and that they
belong together.  What this module adds: an identity may be a pattern, and a signature of cosign 2,
which has Rekor's promise in place of a proof of inclusion, is given to the same library.

Source: https://github.com/sigstore/sigstore-python, `sigstore.verify`; the promise is the signed
entry timestamp of https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sigstore.errors
from cryptography import x509
from cryptography.hazmat import asn1
from sigstore.models import Bundle, InvalidBundle, TransparencyLogEntry
from sigstore.verify import Verifier, policy

from syncd.errors import EvidenceError
from syncd.trust.evidence import Evidence
from syncd.trust.policy import Wanted

_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_BEFORE = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_OTHER_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")
_LONGEST_NAME = 500
"""Characters of an identity: a longer one matches no pattern, so that none runs for long."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed, and what the log says of it; `payload` is what the signature is over."""

    identity: str
    issuer: str
    log_index: int
    time: datetime | None
    payload: bytes


def verify(evidence: Evidence, wanted: Wanted | None, verifier: Verifier) -> Signed:
    """Return who signed; raise EvidenceError unless it is who is wanted, and everything is right.

    Without `wanted`, whoever the certificate names is right.
    """
    if evidence.bundle is None:
        raise EvidenceError("has no certificate with an entry of the log: a key signed it")
    identity = _Identity(wanted)
    payload = evidence.payload
    try:
        bundle = (_PromisedBundle if evidence.promised else Bundle).from_json(evidence.bundle)
        if evidence.form == "simple signing":
            verifier.verify_artifact(payload, bundle, identity)
        else:
            _, payload = verifier.verify_dsse(bundle, identity)
    except EvidenceError:
        raise
    except sigstore.errors.Error as exc:
        raise EvidenceError(f"is not valid: {_words(exc)}") from exc
    except Exception as exc:  # what a hostile bundle makes the library raise is open
        raise EvidenceError(f"is not valid: {type(exc).__name__}: {_words(exc)}") from exc
    return Signed(identity.name, identity.issuer, *_log_entry(bundle), payload)


class _Identity:
    """The part of the library's verification that is about names (`VerificationPolicy`)."""

    def __init__(self, wanted: Wanted | None) -> None:
        self._wanted = wanted
        self.name = ""
        self.issuer = ""

    def verify(self, cert: x509.Certificate) -> None:
        """Raise EvidenceError when the certificate names somebody else."""
        names = [name[:_LONGEST_NAME] for name in _names(cert) if len(name) <= _LONGEST_NAME]
        self.name, self.issuer = ", ".join(names), _issuer(cert)
        if self._wanted is None:
            return
        who = f"is by {self.name or 'nobody'} (issuer {self.issuer or 'not named'})"
        matching = [name for name in names if self._wanted.matches(name)]
        if not matching:
            raise EvidenceError(f"{who}: another identity")
        self.name, issuer = matching[0], self._wanted.issuer
        try:
            policy.Identity(identity=self.name).verify(cert)
            policy.AnyOf([policy.OIDCIssuerV2(issuer), policy.OIDCIssuer(issuer)]).verify(cert)
        except sigstore.errors.VerificationError as exc:
            raise EvidenceError(f"{who}: another issuer") from exc


class _PromisedEntry(TransparencyLogEntry):
    """An entry that the log promised to include: the promise is signed, and there is no proof."""

    def _validate(self) -> None:
        if not self._inner.inclusion_promise or self._inner.integrated_time is None:
            raise InvalidBundle("the entry has no promise with a time")

    def _verify(self, keyring: object) -> None:
        self._verify_set(keyring)  # type: ignore[arg-type] # the library's own, and private


class _PromisedBundle(Bundle):
    """A bundle whose entry of the log has a promise alone, which the library itself refuses."""

    def _verify(self) -> None:
        material = self._inner.verification_material
        if material.certificate is None or len(material.tlog_entries) != 1:
            raise InvalidBundle("there is not one certificate and one entry of the log")
        self._signing_certificate = x509.load_der_x509_certificate(material.certificate.raw_bytes)
        self._log_entry = _PromisedEntry(material.tlog_entries[0])


def _words(exc: Exception) -> str:
    """Return what the library says, in one line, without what pydantic says of the value."""
    return " ".join(str(exc).partition("[type=")[0].split())[:300]


def _names(cert: x509.Certificate) -> list[str]:
    """Return the names of a certificate, as `sigstore.verify.policy.Identity` reads them."""
    found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    others = found.get_values_for_type(x509.OtherName)
    return [
        *found.get_values_for_type(x509.UniformResourceIdentifier),
        *found.get_values_for_type(x509.RFC822Name),
        *(other.value.decode() for other in others if other.type_id == _OTHER_NAME),
    ]


def _issuer(cert: x509.Certificate) -> str:
    """Return who vouched for the identity (sigstore/fulcio, docs/oid-info.md)."""
    found = {
        extension.oid: extension.value.value
        for extension in cert.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    if _ISSUER in found:
        return asn1.decode_der(str, found[_ISSUER])[:_LONGEST_NAME]
    return found.get(_ISSUER_BEFORE, b"").decode()[:_LONGEST_NAME]


def _log_entry(bundle: Bundle) -> tuple[int, datetime | None]:
    """Return index and time of a verified bundle's entry.

    The entry's own time counts with the log's promise only, which signs it; else a time stamp does,
    if there is but one: the library has verified one of them.
    """
    entry = bundle.log_entry._inner
    time = None
    if entry.inclusion_promise and entry.integrated_time:
        time = datetime.fromtimestamp(entry.integrated_time, UTC)
    elif stamps := bundle.verification_material.timestamp_verification_data:
        times = [stamp.tst_info.gen_time for stamp in stamps.rfc3161_timestamps]
        time = times[0] if len(times) == 1 else None
    return entry.log_index, time
