"""The clock's entrance: everything once a week, and a sweep of every watched tag in between.

The weekly run is made up when the daemon was down at its time.  A sweep costs one HEAD request a
tag, and makes a job only where something is missing: it is the net under lost webhooks and nodes
that were offline.  One task looks at the clocks when something is due, and once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import structlog

from syncd.config import Config
from syncd.errors import SyncdError
from syncd.oci import Reference
from syncd.report import ping
from syncd.service.clock import Clock, HostClock
from syncd.service.services import Services
from syncd.service.timetable import WAIT_MAX, Timetable
from syncd.sync import Cause, Counted, Ending

log = structlog.stdlib.get_logger()

_WEEKLY = "weekly"
_SWEEP = "sweep"
_UNKNOWN = "unknown"
_RETRY = "retry"
_RETRY_PAUSE = 5.0  # seconds between two looks at what is to be tried again
_VERIFY = "verify"
_PING = "ping"
_APART = frozenset({_VERIFY, _PING})
"""The runs that change no condition of a tag."""
_VERIFY_PAUSE = 3600.0  # seconds between two looks whose turn it is
_VERIFY_RATE = 16 << 20  # bytes of published files that are read in a second


class Schedule:
    """Submits jobs by the clock.  Lives in one event loop."""

    def __init__(self, services: Services, clock: Clock | None = None) -> None:
        self._services = services
        self._clock = clock or HostClock()
        self._timetable: Timetable
        self._woken = asyncio.Event()
        self._reloaded = True
        self._keeper: asyncio.Task[None] | None = None
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._verify_at = self._clock.uptime() + _VERIFY_PAUSE

    async def start(self) -> None:
        """Start to look at the clocks; make up for a weekly run that was missed."""
        services, now = self._services, self._clock.now()
        ledger = services.executors.ledger
        self._timetable = Timetable(
            services.live.config.schedule,
            weekly=await ledger(services.ledger.last_run, _WEEKLY, now),
            swept=await ledger(services.ledger.last_run, _SWEEP, now),
            now=now,
            uptime=self._clock.uptime(),
        )
        services.live.on_change(self._apply)
        if self._timetable.weekly_due(now):
            log.info("weekly run made up")
            await self.weekly()
        self._keeper = asyncio.create_task(self._keep())

    @property
    def busy(self) -> bool:
        """Whether a run goes on that looks at what is watched."""
        return not self._runs.keys() <= _APART

    def stop(self) -> None:
        """Begin nothing more, and cut short what runs."""
        for task in (self._keeper, *self._runs.values()):
            if task is not None:
                task.cancel()

    async def weekly(self) -> None:
        """Submit everything watched; once that is done, remember that the week's run was."""
        if await self.everything(Cause.SCHEDULE):
            await self._mark_weekly()

    async def everything(self, cause: Cause) -> bool:
        """Submit every watched repository; return whether the ledger took that."""
        services = self._services
        watched = [image.reference for image in services.live.config.image]
        try:
            await services.worker.submit(watched, cause)
        except SyncdError as exc:
            log.error("not submitted", cause=cause, error=str(exc))
            return False
        return True

    async def sweep(self) -> None:
        """Look at every watched tag; submit those that are not published as they are now."""
        tally, begun = self._services.ledger.tally, self._clock.uptime()
        try:
            await self._sweep()
        except Exception:
            tally.add(Counted.SWEEPS, Ending.BROKEN_OFF)
            raise
        tally.add(Counted.SWEEPS, Ending.COMPLETED)
        tally.observe(Counted.SWEEP_SECONDS, seconds=self._clock.uptime() - begun)

    async def _sweep(self) -> None:
        services = self._services
        begun = self._clock.now()
        await services.engine.tidy()
        await services.roots.resume()
        await services.roots.remove_due()
        swept = await services.sweep.look()
        await self._submit(swept.stale, Cause.SWEEP)
        await services.executors.ledger(services.ledger.mark_run, _SWEEP, begun)
        await services.reaper.reap_by_configuration()
        if swept.worked:
            self._begin(_PING, self.ping)

    async def ping(self) -> None:
        """Ask the URL of the dead man's switch, where there is one."""
        try:
            url = self._services.live.config.notify.ping_url()
            fault = await ping(url) if url is not None else None
        except SyncdError as exc:
            fault = str(exc)
        if fault is not None:
            log.warning("dead man's switch not reached", error=fault)

    async def verify(self) -> None:
        """Compare the published files whose turn it is with their digests."""
        every = self._services.live.config.schedule.verify
        if every is None:
            return
        try:
            await self._services.verifier.verify_due(every, _VERIFY_RATE)
        except SyncdError as exc:
            log.warning("not verified", error=str(exc))

    async def unknown(self) -> None:
        """Submit the watched tags of which nothing is known, such as new ones.

        A tag that has a job is left to the job: one that was taken up after a crash may be what
        the daemon dies of, and is given up after some attempts.
        """
        services = self._services
        tags = await services.sweep.unknown()
        await self._submit([tag for tag in tags if not services.worker.has(tag)], Cause.SWEEP)

    async def retry(self) -> None:
        """Submit what failed for a reason that may have passed, once its time has come."""
        services = self._services
        rows, ledger = services.ledger.conditions, services.executors.ledger
        due = await ledger(rows.due, self._clock.now())
        await self._submit(list(dict.fromkeys(row.place.reference for row in due)), Cause.RETRY)
        await ledger(rows.being_tried, due)

    async def _submit(self, references: list[Reference], cause: Cause) -> None:
        if references:
            await self._services.worker.submit(references, cause)

    def _apply(self, config: Config) -> None:
        """Take over the times of a configuration."""
        self._timetable.apply(config.schedule)
        self._reloaded = True
        self._woken.set()

    async def _keep(self) -> None:
        """Begin what is due, until the task is cancelled."""
        while True:
            self._woken.clear()
            wait = await self._begin_due()
            await self._clock.wait(self._woken, wait)

    async def _begin_due(self) -> float:
        """Begin what is due and does not run; return the seconds until the clocks' next look."""
        timetable = self._timetable
        now, uptime = self._clock.now(), self._clock.uptime()
        if timetable.done_ahead(now):
            log.warning("the clock was set back: the weekly run counts as done now")
            await self._guarded(self._mark_weekly)
        if timetable.weekly_due(now):
            self._begin(_WEEKLY, self.weekly)
        if timetable.sweep_due(uptime):
            timetable.sweep_begun(uptime)
            self._begin(_SWEEP, self.sweep)
        if self._reloaded and self._begin(_UNKNOWN, self.unknown):
            self._reloaded = False
        if uptime >= self._verify_at and self._begin(_VERIFY, self.verify):
            self._verify_at = uptime + _VERIFY_PAUSE
        until_retry = await self._until_retry(now)
        if until_retry <= 0:
            self._begin(_RETRY, self.retry)
        # What is due all the same runs already, or could not be written down: later, then.
        return min(timetable.wait(now, uptime) or WAIT_MAX, max(_RETRY_PAUSE, until_retry))

    async def _until_retry(self, now: datetime) -> float:
        """Return the seconds until a failure is tried again."""
        services = self._services
        rows, ledger = services.ledger.conditions, services.executors.ledger
        try:
            if await ledger(rows.due, now):
                return 0.0
            at = await ledger(rows.next_try)
        except SyncdError as exc:
            log.error("the schedule was not kept", error=str(exc))
            return WAIT_MAX
        return (at - now).total_seconds() if at is not None else WAIT_MAX

    def _begin(self, name: str, act: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Begin a run in a task of its own, unless the last one of its kind still runs."""
        if name in self._runs:
            return False
        task = asyncio.create_task(self._guarded(act))
        self._runs[name] = task
        task.add_done_callback(lambda _: self._runs.pop(name, None))
        return True

    async def _guarded(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something; a fault is a line in the log, and no end of the clock."""
        try:
            await act()
        except SyncdError as exc:
            log.error("the schedule was not kept", error=str(exc))
        except Exception:
            log.exception("fault in syncd")

    async def _mark_weekly(self) -> None:
        """Remember that the week's run is done now."""
        services, now = self._services, self._clock.now()
        await services.executors.ledger(services.ledger.mark_run, _WEEKLY, now)
        self._timetable.weekly_done(now)
