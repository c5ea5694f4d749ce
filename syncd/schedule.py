"""The clock's entrance: everything once a week, and a sweep of every watched tag in between.

The weekly run is made up when the daemon was down at its time.  A sweep costs one HEAD request a
tag, and makes a job only where something is missing: it is the net under lost webhooks and nodes
that were offline.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from syncd.cron import trigger
from syncd.errors import SyncdError
from syncd.job import Cause
from syncd.ledger import Ledger
from syncd.reference import Reference
from syncd.settings import Config
from syncd.sync import Sync
from syncd.worker import Worker

log = structlog.stdlib.get_logger()

_WEEKLY = "weekly"
_AT_A_TIME = 8
_GRACE = 3600  # seconds a run may be late, when the machine slept or was busy


class Schedule:
    """Submits jobs by the clock."""

    def __init__(self, sync: Sync, worker: Worker, ledger: Ledger) -> None:
        self._sync = sync
        self._worker = worker
        self._ledger = ledger
        self._clock = AsyncIOScheduler(timezone=UTC)

    def start(self) -> None:
        """Start the clock, and make up for a weekly run that was missed."""
        self.apply(self._sync.config)
        self._clock.start()
        last = self._ledger.last_run(_WEEKLY)
        due = trigger(self._sync.config.schedule.weekly).get_next_fire_time(None, last)
        if due is not None and due <= datetime.now(UTC):
            log.info("weekly run made up", last=last.isoformat())
            self.weekly()

    def apply(self, config: Config) -> None:
        """Take over the times of a configuration."""
        self._clock.remove_all_jobs()
        common = {"coalesce": True, "max_instances": 1, "misfire_grace_time": _GRACE}
        self._clock.add_job(self.weekly, trigger(config.schedule.weekly), **common)
        if config.schedule.sweep is not None:
            seconds = max(1, int(config.schedule.sweep.total_seconds()))
            self._clock.add_job(self.sweep, IntervalTrigger(seconds=seconds), **common)

    def stop(self) -> None:
        """Stop the clock."""
        self._clock.shutdown(wait=False)

    def weekly(self) -> None:
        """Submit everything watched, and remember that the week's run was done."""
        self.everything(Cause.SCHEDULE)
        self._ledger.mark_run(_WEEKLY)

    def everything(self, cause: Cause) -> None:
        """Submit every watched repository."""
        try:
            self._worker.submit((image.reference for image in self._sync.config.image), cause)
        except SyncdError as exc:
            log.error("not submitted", cause=cause, error=str(exc))

    async def sweep(self) -> None:
        """Look at every watched tag; submit those that are not published as they are now."""
        await asyncio.to_thread(self._sync.tidy)
        slots = asyncio.Semaphore(_AT_A_TIME)
        repositories = dict.fromkeys(image.reference for image in self._sync.config.image)

        async def stale(reference: Reference) -> bool:
            async with slots:
                try:
                    return await self._sync.held(reference) is None
                except SyncdError as exc:
                    log.warning("not swept", reference=str(reference), error=str(exc))
                    return False

        async def tags(repository: Reference) -> list[Reference]:
            try:
                return await self._sync.watched(repository)
            except SyncdError as exc:
                log.warning("not swept", reference=str(repository), error=str(exc))
                return []

        found = [one for repository in repositories for one in await tags(repository)]
        wanting = await asyncio.gather(*map(stale, found))
        lacking = [one for one, is_stale in zip(found, wanting, strict=True) if is_stale]
        log.info("swept", tags=len(found), stale=len(lacking))
        if lacking:
            self._worker.submit(lacking, Cause.SWEEP)
