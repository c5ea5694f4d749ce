"""When GitHub is asked: now and then, later after a failure, and at once after a reload.

A GitHub that is at fault is given time: 5 minutes, then twice as long each time, up to an hour.
What it asks for itself counts in any case: no reload cuts that wait short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from syncd.errors import GitHubUnavailableError, SyncdError
from syncd.service.clock import Clock

_AGAIN = 300.0  # seconds after a look that failed, doubled each time
_AGAIN_MAX = 3600.0
_WAKING = 60.0  # seconds between two looks at the clock: a host may have been suspended


class Asking:
    """The clock of one kind of look, whose first one is `first` seconds after the start.

    Lives in one event loop.
    """

    def __init__(self, clock: Clock, first: float = 0.0) -> None:
        self._clock = clock
        self._first = first
        self._woken = asyncio.Event()
        self._at_once = False
        self._failures = 0
        self._rest = 0.0  # the uptime until which GitHub wants to be left alone

    async def keep(self, look: Callable[[], Awaitable[float]]) -> None:
        """Look when it is time, until cancelled; a look returns the seconds until the next one."""
        due = self._clock.uptime() + self._first
        while True:
            self._woken.clear()
            if self._clock.uptime() >= due:
                due = await look() + self._clock.uptime()
            wait = min(_WAKING, max(due - self._clock.uptime(), 0.0))
            await self._clock.wait(self._woken, wait)
            if self._at_once:
                self._at_once = False
                due = min(due, max(self._rest, self._clock.uptime()))

    def look_at_once(self) -> None:
        """Have the next look begin now, or when GitHub wants to be asked again."""
        self._at_once = True
        self._woken.set()

    def succeeded(self) -> None:
        """Hear that a look came to its end."""
        self._failures = 0

    def after(self, fault: SyncdError, every: float) -> float:
        """Hear of a look that failed; return the seconds until the next one, `every` by default."""
        if not isinstance(fault, GitHubUnavailableError):
            return every
        self._failures += 1
        self._rest = self._clock.uptime() + fault.retry_after
        return max(fault.retry_after, min(_AGAIN * 2.0 ** min(self._failures - 1, 10), _AGAIN_MAX))
