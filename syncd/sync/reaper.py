"""What is gone is deleted: the templates of tags that are not in the registry, or not watched, now.

So are the versions that retention lets go, when somebody asks for it; jobs do that by themselves.

A tag counts as gone only while its repository's list of tags can be read and lacks the tag: an
unreachable registry, or one that denies access, never costs a template.  Pinned templates stay, and
so does what something is made from, or what another tag means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import structlog

from syncd.errors import PublishError, RegistryError, StoppedError, SyncdError
from syncd.oci import Reference
from syncd.sync.conditions import Condition, Lack
from syncd.sync.context import Running
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.recorder import ConditionRecorder, conditions_now
from syncd.sync.retention import Retained

log = structlog.stdlib.get_logger()


class Reaper:
    """Deletes what is gone.  Lives in one event loop."""

    def __init__(
        self,
        running: Running,
        ledger: Ledger,
        executors: Executors,
        engine: SyncEngine,
        conditions: ConditionRecorder,
    ) -> None:
        self._running = running
        self._ledger = ledger
        self._executors = executors
        self._engine = engine
        self._conditions = conditions

    async def retain(self, *, dry_run: bool = False) -> Retained:
        """Delete the versions that retention lets go, of every tag."""
        templates = await self._executors.ledger(self._ledger.templates)
        tags = dict.fromkeys(template.reference for template in templates)
        return _joined([await self._engine.retain(tag, dry_run=dry_run) for tag in tags])

    async def reap(self, older_than: timedelta, *, dry_run: bool = False) -> Retained:
        """Delete the templates of everything that has been gone for so long."""
        if not dry_run:
            await self._executors.ledger(self._conditions.unwatch)
        rows = conditions_now(
            self._running.config, await self._executors.ledger(self._ledger.conditions.all)
        )
        return await self._reap(_old(rows, lambda _: older_than), dry_run=dry_run)

    async def reap_by_configuration(self) -> Retained:
        """Delete the templates of tags that came by a pattern, as `[[image]] gone` says."""
        rows = await self._executors.ledger(self._ledger.conditions.all)
        return await self._reap(_old(rows, self._span), dry_run=False)

    def _span(self, row: Condition) -> timedelta | None:
        """Return after what time a tag is reaped by itself; None for those that never are."""
        reference = row.place.reference
        settings = self._running.config.watching(reference)
        if row.lack is not Lack.TAG or settings is None or reference.tag in settings.fixed_tags:
            return None
        if self._running.config.registry_for(reference.registry).mirror_tags:
            return None
        return settings.gone

    async def _reap(self, rows: Iterable[Condition], *, dry_run: bool) -> Retained:
        lists: dict[str, list[str] | SyncdError] = {}
        return _joined([await self._reap_one(row, lists, dry_run=dry_run) for row in rows])

    async def _reap_one(
        self, row: Condition, lists: dict[str, list[str] | SyncdError], *, dry_run: bool
    ) -> Retained:
        """Delete what is left of one place; `lists` has the lists of tags that were read."""
        place = row.place
        # Before the registry is asked: what a job publishes meanwhile is not among it.
        versions = await self._executors.ledger(
            self._ledger.templates, place.reference, place.target
        )
        if row.lack is Lack.TAG:
            tags = await self._tags(place.reference, lists)
            if isinstance(tags, SyncdError):
                error = PublishError(f"{place.reference} may not be gone: {tags}")
                return Retained(refused=tuple((version, error) for version in versions))
            if place.reference.tag in tags:
                return Retained()
        reaped = await self._engine.reap(place, versions, dry_run=dry_run)
        left = await self._executors.ledger(self._ledger.templates, place.reference, place.target)
        if not left and not dry_run:
            await self._executors.ledger(self._ledger.conditions.forget_gone, place)
            log.info("reaped", reference=str(place.reference), target=place.target)
        return reaped

    async def _tags(
        self, reference: Reference, lists: dict[str, list[str] | SyncdError]
    ) -> list[str] | SyncdError:
        if self._running.config.registry_for(reference.registry).mirror_tags:
            return RegistryError("what a mirror does not list is not gone (mirror_tags)")
        if reference.name not in lists:
            try:
                lists[reference.name] = await self._engine.tags.all(reference)
            except StoppedError:
                raise
            except SyncdError as exc:
                lists[reference.name] = exc
        return lists[reference.name]


def _joined(parts: Iterable[Retained]) -> Retained:
    """Return what became of all parts together."""
    parts = list(parts)
    return Retained(
        tuple(template for part in parts for template in part.gone),
        tuple(refusal for part in parts for refusal in part.refused),
        tuple(template for part in parts for template in part.spared),
    )


def _old(
    rows: Iterable[Condition], span: Callable[[Condition], timedelta | None]
) -> list[Condition]:
    """Return what has been gone for its span of time."""
    now = datetime.now(UTC)
    return [
        row
        for row in rows
        if row.gone and (wanted := span(row)) is not None and now - row.since >= wanted
    ]
