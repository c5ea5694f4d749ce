"""The messenger: decides when news are told, so that a run is one message.

News are told once nothing runs that may make more of them, and nothing that failed is tried again
soon: a failure that passes within a minute is told to nobody.  Work without end delays news by
LONGEST at most.  Nothing here happens in a job's slot.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from syncd.errors import SyncdError
from syncd.report import Delivery, Notifier
from syncd.service.clock import Clock, HostClock
from syncd.service.services import Services

log = structlog.stdlib.get_logger()

SETTLE = 5.0
"""Seconds of quiet before news are told, and between two looks whether it is quiet."""
SOON = timedelta(seconds=90)
"""What failed and is tried again within this time is waited for."""
LONGEST = 900.0
"""Seconds after which news are told although work goes on."""
_PARTING = 2.0  # seconds that a delivery under way has when the daemon stops
_IDLE = 60.0  # seconds between two looks for news that another process made, and for reminders


class Messenger:
    """Tells news.  Lives in one event loop; `busy` tells whether a run of the clock goes on."""

    def __init__(
        self,
        services: Services,
        busy: Callable[[], bool],
        clock: Clock | None = None,
    ) -> None:
        self._services = services
        self._busy = busy
        self._clock = clock or HostClock()
        parts = (services.live, services.ledger, services.executors)
        self._notifier = Notifier(*parts)
        self._delivery = Delivery(*parts)
        self._woken = asyncio.Event()
        self._quiet_since: float | None = None
        self._untold_since: float | None = None
        self._deliver_at = 0.0  # of the clock's uptime; what an earlier process left is due at once
        self._keeper: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to look for news."""
        loop = asyncio.get_running_loop()

        def changed() -> None:
            with suppress(RuntimeError):  # the loop is closed, and the next start looks
                loop.call_soon_threadsafe(self._changed)

        self._services.conditions.on_change(changed)
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Begin nothing more; what is not told or delivered is so after the next start.

        A delivery under way has a moment to be written down, so that it is not repeated.
        """
        if self._keeper is not None:
            self._keeper.cancel()
        delivering = self._delivering
        if delivering is not None:
            await asyncio.wait({delivering}, timeout=_PARTING)
            delivering.cancel()

    def _changed(self) -> None:
        """Hear that a condition changed: it is not quiet yet."""
        self._quiet_since = None
        self._woken.set()

    async def _keep(self) -> None:
        """Tell and deliver what is due, until the task is cancelled."""
        while True:
            self._woken.clear()
            wait = _IDLE
            try:
                wait = await self._tell_due()
            except SyncdError as exc:
                log.error("news not told", error=str(exc))
            except Exception:
                log.exception("fault in syncd")
            uptime = self._clock.uptime()
            if self._delivering is None and uptime >= self._deliver_at:
                self._delivering = asyncio.create_task(self._deliver())
            if self._delivering is None:  # else its end wakes this task
                wait = max(0.0, min(wait, self._deliver_at - uptime))
            await self._clock.wait(self._woken, wait)

    async def _tell_due(self) -> float:
        """Tell the news if it is quiet; return the seconds until the next look."""
        now, uptime = self._clock.now(), self._clock.uptime()
        working = bool(self._services.worker.busy) or self._busy()
        if working:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = uptime
        if self._untold_since is None:
            self._untold_since = uptime
        overdue = uptime - self._untold_since >= LONGEST
        if working and not overdue:
            return SETTLE
        if not await self._notifier.has_news(now):
            self._untold_since = None
            return SETTLE if working else _IDLE
        quiet = self._quiet_since is not None and uptime - self._quiet_since >= SETTLE
        if not overdue and not (quiet and await self._nothing_soon(now)):
            return SETTLE
        self._untold_since = None
        if await self._notifier.tell(now):
            self._deliver_at = uptime
        return SETTLE if working else _IDLE

    async def _nothing_soon(self, now: datetime) -> bool:
        """Tell whether no failure is tried again soon."""
        services = self._services
        at = await services.executors.ledger(services.ledger.conditions.next_try)
        return at is None or at - now > SOON

    async def _deliver(self) -> None:
        """Deliver what is due, and note when something is due again."""
        self._deliver_at = math.inf
        again: timedelta | None = timedelta(seconds=_IDLE)
        try:
            again = await self._delivery.deliver(self._clock.now())
        except SyncdError as exc:
            log.error("notifications not delivered", error=str(exc))
        except Exception:
            log.exception("fault in syncd")
        finally:
            self._delivering = None
        if again is not None:
            at = self._clock.uptime() + again.total_seconds()
            self._deliver_at = min(self._deliver_at, at)
        self._woken.set()
