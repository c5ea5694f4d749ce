"""Tags that a pattern names and that mean no image: left alone until they mean something else.

A repository also holds what is no image, such as charts and signatures, and whoever writes a
pattern did not choose it.  A tag that the configuration gives by its name is never passed over.
"""

from __future__ import annotations

import structlog

from syncd.errors import NoImageError
from syncd.oci import Descriptor, Digest, Platform
from syncd.sync.context import Running, SyncContext
from syncd.sync.executors import Executors
from syncd.sync.job import Outcome, Result
from syncd.sync.recorder import ConditionRecorder

log = structlog.stdlib.get_logger()

_DIGESTS_MAX = 10_000
"""Digests that are remembered to be no images; each that is forgotten costs a job."""


class PassedOver:
    """What is known to be no image.  Lives in one event loop, and remembers for as long."""

    def __init__(
        self, running: Running, executors: Executors, conditions: ConditionRecorder
    ) -> None:
        self._running = running
        self._executors = executors
        self._conditions = conditions
        self._known: set[tuple[Digest, Platform]] = set()

    def has(self, context: SyncContext, top: Descriptor) -> bool:
        """Whether what the reference means is known to be no image, and nobody named the tag."""
        return (top.digest, context.platform) in self._known and self._applies(context)

    async def add(self, context: SyncContext, top: Descriptor, error: NoImageError) -> Outcome:
        """Have sweeps leave the tag alone; raise the error where the tag was given by its name.

        The log has it once for each digest.
        """
        if not self._applies(context):
            raise error
        meaning = (top.digest, context.platform)
        if meaning not in self._known:
            log.warning("tag passed over", reference=str(context.reference), reason=error.what)
        if len(self._known) >= _DIGESTS_MAX:
            self._known.clear()
        self._known.add(meaning)
        await self._executors.ledger(self._conditions.passed_over, context.reference)
        return Outcome(Result.UNCHANGED, f"{error.what}: passed over")

    def _applies(self, context: SyncContext) -> bool:
        return self._running.config.watches_by_pattern(context.reference)
