"""Trust: who has to vouch for an image, and whether somebody does.

A policy names signers; a judge finds an image's signatures in its registry and holds them against
the policy, before anything of the image is fetched.  What is not proven is not trusted.  Only this
package imports sigstore, and only where a certificate is to be verified: it takes its time.
"""

from syncd.trust.attestations import Attestation, attestations_of
from syncd.trust.judge import Judge, Testimony
from syncd.trust.policy import PATTERN, Policy, Wanted
from syncd.trust.subject import Subject
from syncd.trust.voucher import Voucher

__all__ = [
    "PATTERN",
    "Attestation",
    "Judge",
    "Policy",
    "Subject",
    "Testimony",
    "Voucher",
    "Wanted",
    "attestations_of",
]
