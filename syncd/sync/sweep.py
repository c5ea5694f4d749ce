"""Looks at all that is watched: which tags need a job, and what is true of the others.

A look costs one HEAD request a tag, and one list of tags for each repository with patterns.  What
cannot be looked at is a failure like any other, and keeps nothing else from being looked at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import structlog

from syncd.errors import StoppedError, SyncdError
from syncd.oci import Reference
from syncd.sync.conditions import Failed, Finding, Missing
from syncd.sync.context import Running
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.job import GIVEN_UP
from syncd.sync.recorder import ConditionRecorder
from syncd.sync.slots import Turn, turn_of

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: the tags that need a job, and whether the sweep worked.

    It did not where nothing of what is watched could be looked at.
    """

    stale: list[Reference]
    worked: bool


class Sweep:
    """Looks at what is watched.  Lives in one event loop."""

    def __init__(
        self,
        running: Running,
        engine: SyncEngine,
        executors: Executors,
        conditions: ConditionRecorder,
    ) -> None:
        self._running = running
        self._engine = engine
        self._executors = executors
        self._conditions = conditions

    async def look(self) -> Swept:
        """Look at every watched tag; return those that are not published as they are, and can be.

        A job that was given up is left to a push, the weekly run, or a person: another attempt
        each hour would have the daemon die each hour.
        """
        tags, unread = await self._tags(list(self._repositories))
        looks = list(zip(tags, await asyncio.gather(*map(self._look, tags)), strict=True))
        await self._executors.ledger(self._conditions.record, looks)
        given_up = await self._executors.ledger(self._conditions.failing_by, GIVEN_UP.message)
        stale = [tag for tag, look in looks if _any(look, Missing) and tag not in given_up]
        failing = await self._executors.ledger(self._conditions.failing)
        log.info("swept", tags=len({*tags, *failing}), stale=len(stale), failing=len(failing))
        unseen = sum(_any(look, Failed) for _, look in looks)
        return Swept(stale, worked=unseen < len(tags) or not (tags or unread))

    async def unknown(self) -> list[Reference]:
        """Return the watched tags of which nothing is known yet, such as new ones.

        Tags that are given by name cost no request.
        """
        await self._executors.ledger(self._conditions.unwatch)
        tags, _ = await self._tags(list(self._repositories))
        return await self._executors.ledger(self._conditions.unknown, tags)

    @property
    def _repositories(self) -> dict[Reference, None]:
        return dict.fromkeys(image.reference for image in self._running.config.image)

    async def _tags(self, repositories: list[Reference]) -> tuple[list[Reference], int]:
        """Return the watched tags as they are now, and how many lists of tags cannot be read.

        Of a list that cannot be read they are those given by name.
        """
        listings = await asyncio.gather(*map(self._engine.tags.watched, repositories))
        faults = Counter(str(listing.fault) for listing in listings if listing.fault)
        for fault, times in faults.items():
            log.warning("tags not listed", error=fault, repositories=times)
        tags = [tag for listing in listings for tag in listing.tags]
        return tags, faults.total()

    async def _look(self, reference: Reference) -> dict[str, Finding]:
        try:
            with turn_of(Turn(reference.name, backlog=True)):
                return await self._engine.look(reference)
        except StoppedError:
            raise
        except SyncdError as exc:
            log.warning("not swept", reference=str(reference), error=str(exc))
            return {}


def _any(look: dict[str, Finding], kind: type[Finding]) -> bool:
    return any(isinstance(finding, kind) for finding in look.values())
