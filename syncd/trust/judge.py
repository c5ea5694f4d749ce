"""Whether an image is what its policy wants: the signatures are found, and held against it.

An image is vouched for by a signature of its index or of its platform's manifest: each names the
other's bytes by digest.  Whatever is not proven right is wrong: a signature that cannot be read, a
list that lies, a trust root that is not there.  The error says what was found and what was wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from syncd.errors import (
    EvidenceError,
    TrustError,
    TrustRootUnavailableError,
    UnsignedError,
    UntrustedError,
)
from syncd.trust.attachments import LOOKED_AT_MAX, Attachments
from syncd.trust.claim import SIGNATURE, Claim
from syncd.trust.evidence import Evidence
from syncd.trust.policy import Policy, Wanted
from syncd.trust.subject import Subject
from syncd.trust.voucher import Voucher

if TYPE_CHECKING:
    from syncd.trust.trust_root import TrustRoots

_TOLD_MAX = 5


@dataclass(frozen=True, slots=True)
class Testimony:
    """One signature that was found: what vouches, or the reason why it does not."""

    place: str
    voucher: Voucher | None
    fault: str = ""


class Judge:
    """Holds images against policies.  Blocking; safe to use from several threads.

    `folder` keeps the public trust root.  A key needs none, and then the library that verifies
    certificates is not loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._opened: TrustRoots | None = None

    def prepare(self, policy: Policy) -> None:
        """Ensure that whom the policy trusts is known: the files, and the public trust root.

        Raise TrustError, and TrustRootUnavailableError where nobody else may be enough.
        """
        needs_all = policy.require_all or len(policy.wanted) == 1
        for one in policy.wanted:
            if one.key_file is not None:
                from syncd.trust.key import Key

                Key.load(one.key_file)
                continue
            try:
                self._roots.of(one.trust_root)
            except TrustRootUnavailableError:
                if needs_all:
                    raise

    def require(self, subject: Subject, policy: Policy) -> tuple[Voucher, ...]:
        """Return what vouches for an image, in the order of the policy.

        Raise UnsignedError when it has no signature, UntrustedError when it has none that is
        wanted, TrustError, and RegistryError where the registry does not answer.
        """
        found: dict[Wanted, Voucher] = {}
        faults: list[str] = []
        unavailable: TrustRootUnavailableError | None = None
        for predicate in dict.fromkeys(one.attestation or SIGNATURE for one in policy.wanted):
            lacking = [one for one in policy.wanted if (one.attestation or SIGNATURE) == predicate]
            for evidence in self._evidence(subject, predicate, faults):
                for wanted in [one for one in lacking if one not in found]:
                    try:
                        found[wanted] = self._voucher(subject, evidence, wanted)
                    except EvidenceError as exc:
                        faults.append(f"{evidence.place} {exc.what}")
                    except TrustRootUnavailableError as exc:
                        unavailable = exc
                if _enough(found, policy):
                    return tuple(found[one] for one in policy.wanted if one in found)
        if unavailable is not None:
            raise unavailable
        raise _untrusted(subject, policy, found, list(dict.fromkeys(faults)))

    def examine(self, subject: Subject, policy: Policy | None) -> list[Testimony]:
        """Return every signature and attestation of an image, and who is behind each.

        What a key signed is told only where the policy names the key.  Raise RegistryError.
        """
        keys = [one for one in (policy.wanted if policy else ()) if one.key_file is not None]
        roots = (
            dict.fromkeys(one.trust_root for one in policy.wanted if one.key_file is None)
            if policy
            else [None]
        )
        faults: list[str] = []
        told: list[Testimony] = []
        for evidence in self._evidence(subject, "", faults):
            reasons: list[str] = []
            voucher = None
            tries: list[Wanted] = [*keys, *(Wanted(trust_root=root) for root in roots)]
            for wanted in tries:
                try:
                    voucher = self._voucher(subject, evidence, wanted, anybody=True)
                    break
                except (EvidenceError, TrustError) as exc:
                    reasons.append(exc.what)
            told.append(Testimony(evidence.place, voucher, "" if voucher else "; ".join(reasons)))
        return [*told, *(Testimony("", None, fault) for fault in faults)]

    @property
    def _roots(self) -> TrustRoots:
        with self._lock:
            if self._opened is None:
                from syncd.trust.trust_root import TrustRoots

                self._opened = TrustRoots(self._folder)
            return self._opened

    def _evidence(self, subject: Subject, predicate: str, faults: list[str]) -> Iterator[Evidence]:
        for digest in subject.digests:
            attached = Attachments(subject.repository, subject.reference, digest)
            yield from attached.found(predicate)
            faults += attached.unread
            if attached.beyond:
                faults.append(
                    f"{digest} has {attached.beyond} more signatures than the {LOOKED_AT_MAX} that "
                    "are looked at"
                )

    def _voucher(
        self, subject: Subject, evidence: Evidence, wanted: Wanted, *, anybody: bool = False
    ) -> Voucher:
        """Return what a signature is worth; raise EvidenceError when that is nothing.

        With `anybody` it need not be who is wanted, nor say what is wanted.
        """
        digest = _covered(evidence.claim, subject)
        if not anybody:
            _check_claim(evidence.claim, digest, wanted)
        if wanted.key_file is not None:
            from syncd.trust.key import Key

            key = Key.load(wanted.key_file)
            key.verify(evidence)
            return Voucher(digest, evidence.claim.what, evidence.form, evidence.place, key=key.name)
        if evidence.bundle is None:
            raise EvidenceError("has no certificate: a key signed it")
        from syncd.trust import keyless

        verifier = self._roots.of(wanted.trust_root)
        signed = keyless.verify(evidence, None if anybody else wanted, verifier)
        if signed.payload != evidence.payload:
            raise EvidenceError("is signed over something else than it says")
        return Voucher(
            digest,
            evidence.claim.what,
            evidence.form,
            evidence.place,
            signed.identity,
            signed.issuer,
            "",
            signed.log_index,
            signed.time,
        )


def _covered(claim: Claim, subject: Subject) -> str:
    """Return which of an image's digests a signature is of; raise EvidenceError if of none."""
    for digest in map(str, subject.digests):
        if digest in claim.subjects:
            return digest
    of = ", ".join(list(claim.subjects)[:2]) or "nothing"
    raise EvidenceError(f"is {claim.what} of {of:.200}: another image")


def _check_claim(claim: Claim, digest: str, wanted: Wanted) -> None:
    if claim.predicate != (wanted.attestation or SIGNATURE):
        raise EvidenceError(f"is {claim.what}")
    notes = claim.subjects[digest]
    for key, value in wanted.annotations:
        if notes.get(key) != value:
            raise EvidenceError(f"has the annotation {key}={notes.get(key)!r:.100}, not {value!r}")


def _enough(found: dict[Wanted, Voucher], policy: Policy) -> bool:
    return len(found) == len(set(policy.wanted)) if policy.require_all else bool(found)


def _untrusted(
    subject: Subject, policy: Policy, found: dict[Wanted, Voucher], faults: Sequence[str]
) -> UntrustedError:
    """Return the error of an image for which not enough vouches: what was found, what is wanted."""
    lacking = Policy(tuple(one for one in policy.wanted if one not in found), policy.require_all)
    digest = subject.digests[0]
    what = (
        f"nobody vouches for {subject.reference} as wanted: of {digest} there has to be {lacking}"
    )
    if not faults and not found:
        return UnsignedError(
            f"{what}; found: no signature at all, neither referring to it nor at its tag .sig",
            "sign the image; a signature that comes later is found when it is tried again",
        )
    told = [f"{voucher.place} is {voucher}" for voucher in found.values()] + list(faults)
    more = f"; and {len(told) - _TOLD_MAX} more" if len(told) > _TOLD_MAX else ""
    return UntrustedError(
        f"{what}; found: {'; '.join(told[:_TOLD_MAX])}{more}",
        "find out who pushed it, or change [image.verify]",
    )
