"""The step of a job before anything of an image is fetched: somebody has to vouch for it.

Where the configuration names nobody, nobody has to.  What passed is in the ledger before the image
is published, so that no template is ever published of which the ledger does not know who vouched.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from syncd.errors import TrustError, UntrustedError
from syncd.oci import Digest, Image, Reference, read_image
from syncd.sync.context import Running, SyncContext
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.vouched_rows import VouchedImage
from syncd.trust import Judge, Policy, Subject, Testimony, Voucher

log = structlog.stdlib.get_logger()

_SIGSTORE = "the trust root of Sigstore"
"""By what the waits for the trust root are counted together: they are no registry's fault."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What an image's signatures say, and whether the image passes its policy.

    `digest` is what the reference means now, None where that is not known; `policy` is None where
    nobody has to vouch.  `fault` says why the image does not pass, or what is not known.
    """

    reference: Reference
    digest: Digest | None
    policy: Policy | None
    vouchers: tuple[Voucher, ...]
    fault: str
    testimonies: tuple[Testimony, ...]


class Vouching:
    """Holds images against their policies, off the event loop that it lives in."""

    def __init__(self, running: Running, ledger: Ledger, executors: Executors) -> None:
        self._ledger = ledger
        self._executors = executors
        self._judge = Judge(running.config.state.paths.trust)

    async def require(self, context: SyncContext, image: Image) -> None:
        """Ensure that an image passed its policy, and that the ledger says so.

        Raise UntrustedError when it does not pass, and whatever keeps that from being known: it
        never passes then.
        """
        policy = context.settings.policy
        if policy is None:
            return
        looking, registry = self._executors.looking, context.reference.registry
        await looking.run(_SIGSTORE, self._judge.prepare, policy)
        await looking.run(registry, self._require, context, image, policy)

    async def examine(self, context: SyncContext) -> Examined:
        """Return who signed what a reference means now; nothing is written down.

        Raise RegistryError or ImageError where that cannot be read.
        """
        return await self._executors.looking.run(context.reference.registry, self._examine, context)

    def _examine(self, context: SyncContext) -> Examined:
        reference, policy = context.reference, context.settings.policy
        top = context.repository.resolve(reference)
        image = read_image(context.repository, top, context.platform)
        subject = Subject(reference, context.repository, digests_of(image))
        vouchers: tuple[Voucher, ...] = ()
        fault = ""
        if policy is not None:
            try:
                vouchers = self._judge.require(subject, policy)
            except (UntrustedError, TrustError) as exc:
                fault = str(exc)
        testimonies = tuple(self._judge.examine(subject, policy))
        return Examined(reference, image.digest, policy, vouchers, fault, testimonies)

    def _require(self, context: SyncContext, image: Image, policy: Policy) -> None:
        fingerprint = policy.fingerprint()
        key = VouchedImage.of(context.reference, image.digest, image.manifest_digest)
        if self._ledger.vouched.passed(key, fingerprint):
            return
        subject = Subject(context.reference, context.repository, digests_of(image))
        vouchers = self._judge.require(subject, policy)
        self._ledger.vouched.record(key, fingerprint, vouchers)
        log.info("vouched", digest=str(image.digest), by=[str(voucher) for voucher in vouchers])


def digests_of(image: Image) -> tuple[Digest, ...]:
    """Return the digests by which an image may be signed: of its index and of its manifest."""
    return tuple(dict.fromkeys((image.digest, image.manifest_digest)))
