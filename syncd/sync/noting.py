"""What a job finds becomes conditions, whatever way the job goes.

A caller's job leaves none: what a caller's login opens says nothing of what the configuration can
open, and a wrong one would make a watched tag look as if it failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from syncd.errors import NotFoundError, RegistryError, StoppedError, SyncdError
from syncd.sync.conditions import Failed, Finding
from syncd.sync.context import SyncContext
from syncd.sync.executors import Executors
from syncd.sync.recorder import NO_TAG, ConditionRecorder
from syncd.sync.tag_list import TagLists


class Noting:
    """Has the conditions say what jobs find.  Lives in the engine's event loop."""

    def __init__(self, executors: Executors, conditions: ConditionRecorder, tags: TagLists) -> None:
        self._executors = executors
        self._conditions = conditions
        self._tags = tags

    @asynccontextmanager
    async def noted(self, context: SyncContext) -> AsyncIterator[dict[str, Finding]]:
        """Have the conditions say of a fault what was found before, and what the fault means."""
        findings: dict[str, Finding] = {}
        try:
            yield findings
        except StoppedError:
            raise
        except Exception as exc:
            if lacking := [t.name for t in context.targets if t.name not in findings]:
                findings.update(dict.fromkeys(lacking, await self.fault(context, exc)))
            await self.note(context, findings)
            raise

    async def note(self, context: SyncContext, findings: dict[str, Finding]) -> None:
        """Have the conditions of the reference say what was found, by the targets' names."""
        if context.login is None:
            await self._executors.ledger(self._conditions.record, [(context.reference, findings)])

    async def fault(
        self, context: SyncContext, exc: Exception, *, is_there: bool = False
    ) -> Finding:
        """Return what an error means: a tag that the registry does not list is gone.

        `is_there` tells that the registry has said before what the tag means.  An answer that there
        is no such tag is no evidence: it is also given to who has no access.
        """
        reference = context.reference
        may_be_gone = isinstance(exc, NotFoundError) and context.login is None
        if may_be_gone and self._conditions.places(reference):
            with suppress(SyncdError):
                if reference.tag not in await self._tags.all(reference):
                    return NO_TAG
        return Failed.of(exc, blind=isinstance(exc, RegistryError) and not is_there)
