"""What an image says of itself, kept beside the template: its SBOM, and how it was built.

A template says what is in it only by being unpacked; the build knew.  Nothing depends on it: an
image without attestations is published like any other, and so is one whose attestations cannot be
read, which is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import structlog

from syncd.errors import StoppedError, SyncdError
from syncd.oci import Descriptor, Image
from syncd.sync.context import SyncContext
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.vouched_rows import VouchedImage
from syncd.sync.vouching import digests_of
from syncd.trust import Attestation, Subject, attestations_of

log = structlog.stdlib.get_logger()


class Provenance:
    """Fetches attestations and writes them down, off the event loop that it lives in."""

    def __init__(self, ledger: Ledger, executors: Executors) -> None:
        self._ledger = ledger
        self._executors = executors

    async def keep(self, context: SyncContext, top: Descriptor, image: Image) -> None:
        """Ensure that the ledger has what an image brought, as far as that can be read."""
        try:
            await self._executors.looking.run(
                context.reference.registry, self._keep, context, top, image
            )
        except StoppedError:
            raise
        except SyncdError as exc:
            log.warning("attestations not kept", digest=str(image.digest), error=str(exc))

    def _keep(self, context: SyncContext, top: Descriptor, image: Image) -> None:
        subject = Subject(context.reference, context.repository, digests_of(image))
        brought = attestations_of(subject, top)
        key = VouchedImage.of(context.reference, image.digest, image.manifest_digest)
        self._ledger.attestations.keep(key, brought.kept)
        if brought.faults:
            faults = brought.faults[:5]
            log.warning("attestations not kept", digest=str(image.digest), faults=faults)


def attestations_of_volume(ledger: Ledger, volume: str) -> list[Attestation] | None:
    """Return what the image of a published template brought; None for an unknown volume id."""
    for row in ledger.templates():
        if volume in row.volumes:
            image = VouchedImage.of(row.reference, row.digest, row.manifest_digest)
            return ledger.attestations.of(image)
    return None


def json_lines(attestations: Iterable[Attestation]) -> bytes:
    """Return attestations as JSON Lines, each on one line as it was brought.

    Source: https://github.com/in-toto/attestation/blob/main/spec/v1/bundle.md
    """
    lines = (
        json.dumps(json.loads(one.content), separators=(",", ":"), ensure_ascii=False)
        for one in attestations
    )
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
