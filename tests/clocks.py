"""A host's clocks in the hand of a test: they step, the host is suspended, and time passes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

_ROUNDS = 5  # of the event loop, in which tasks that were begun come to their first wait


class HandClock:
    """Both clocks, and the timers of the event loop, moved by hand only."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)  # a Thursday
        self.boot = 5000.0
        self._waiting = asyncio.Event()
        self._timer: tuple[asyncio.Event, float] | None = None

    def now(self) -> datetime:
        return self.time

    def uptime(self) -> float:
        return self.boot

    async def wait(self, woken: asyncio.Event, seconds: float) -> None:
        self._timer = (woken, seconds)
        self._waiting.set()
        await woken.wait()

    def set(self, **by: float) -> None:
        """Set the time of day forward or back, as an administrator or NTP does."""
        self.time += timedelta(**by)

    def suspend(self, **by: float) -> None:
        """Let the host sleep: both clocks go on, and no timer does."""
        self.set(**by)
        self.boot += timedelta(**by).total_seconds()

    async def run(self, **by: float) -> None:
        """Let time pass, timers too: whoever waits is woken when the wait is over."""
        left = timedelta(**by).total_seconds()
        while left > 0:
            await self.settled()
            assert self._timer is not None
            woken, seconds = self._timer
            step = min(left, seconds)
            left -= step
            self.suspend(seconds=step)
            if step < seconds:
                self._timer = (woken, seconds - step)
            else:
                woken.set()
        await self.settled()

    async def settled(self) -> None:
        """Wait until somebody waits for a timer."""
        if self._timer is not None and self._timer[0].is_set():
            self._waiting.clear()
        async with asyncio.timeout(20):
            await self._waiting.wait()
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
