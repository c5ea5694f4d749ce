"""What keeps the ledger and the targets in order while the daemon runs, beside the jobs.

It runs at the start and then as often as the sweep, at least once an hour, whether or not there is
a sweep: a daemon may run for years.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog

from syncd.errors import SyncdError
from syncd.service.services import Services

log = structlog.stdlib.get_logger()

_EVERY = timedelta(hours=1)


async def keep_in_order(
    services: Services, wait: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Look after what was left behind and what is old, again and again until cancelled.

    `wait` takes the seconds until the next time.
    """
    acts = (
        services.worker.resume,
        services.engine.settle,
        partial(services.executors.ledger, services.ledger.expire),
    )
    while True:
        for act in acts:
            try:
                await act()
            except SyncdError as exc:
                log.error("not kept in order", error=str(exc))
            except Exception:
                log.exception("fault in syncd")
        await wait(min(services.live.config.schedule.sweep or _EVERY, _EVERY).total_seconds())
