"""What metrics need while nobody asks for them: totals written down, and looks at the space.

What was counted goes into the ledger once a minute, where it survives a crash.  Space is looked at
every five minutes and remembered, since a scrape waits for no target, no mount and no long walk
through the cache.  A target that cannot be asked has no figures until it can, and one that gives no
answer keeps only itself waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from syncd.errors import LedgerError, SyncdError
from syncd.files import free_and_total
from syncd.service.services import Services
from syncd.targets import MeasuredTarget, Space

log = structlog.stdlib.get_logger()

_EVERY = 60.0  # seconds
_LOOK_EACH = 5  # times


class Measurements:
    """Keeps the metrics of one process true.  Lives in one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def keep(self, wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Write totals down and look at the space, again and again until cancelled.

        `wait` takes the seconds until the next time.
        """
        services, times = self._services, 0
        try:
            while True:
                if times % _LOOK_EACH == 0:
                    self.look()
                times += 1
                await wait(_EVERY)
                try:
                    await services.executors.ledger(services.ledger.tally.write)
                except LedgerError as exc:
                    log.warning("what was counted is written down later", error=str(exc))
        finally:
            for look in self._looks.values():
                look.cancel()

    def look(self) -> list[asyncio.Task[None]]:
        """Look at the space wherever no earlier look is under way; return the looks that are."""
        targets = self._services.live.targets
        usage = self._services.metrics.usage
        kept = {name: spaces for name, spaces in usage.targets.items() if name in targets}
        self._services.metrics.usage = replace(usage, targets=kept)
        self._begin("", self._look_at_state())
        for name, target in targets.items():
            if isinstance(target, MeasuredTarget):
                self._begin(name, self._look_at(target))
        return list(self._looks.values())

    def _begin(self, name: str, look: Coroutine[Any, Any, None]) -> None:
        if name in self._looks:
            look.close()
            return
        task = asyncio.create_task(look)
        self._looks[name] = task
        task.add_done_callback(lambda _: self._looks.pop(name))

    async def _look_at_state(self) -> None:
        metrics, executors = self._services.metrics, self._services.executors
        folder, room = self._services.live.config.state.directory, self._services.engine.room
        try:
            cache = await executors.tidying.run(room.parts)
            state = Space("state", *await executors.tidying.run(free_and_total, folder))
        except OSError as exc:
            log.warning("space not looked at", folder=str(folder), error=exc.strerror)
            return
        metrics.usage = replace(metrics.usage, cache=cache, state=state)

    async def _look_at(self, target: MeasuredTarget) -> None:
        metrics, executors = self._services.metrics, self._services.executors
        try:
            spaces = await executors.looking.run(target.name, target.space)
        except SyncdError as exc:
            log.debug("space not known", target=target.name, error=str(exc))
            spaces = []
        others = {name: each for name, each in metrics.usage.targets.items() if name != target.name}
        metrics.usage = replace(metrics.usage, targets={**others, target.name: spaces})
