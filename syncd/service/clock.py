"""The host's two clocks: the time of day, which may be set, and the time since the host booted.

The time of day says when a cron line is due.  How long ago something was is asked of the time
since the boot, which nobody sets, and which goes on while the host is suspended
(clock_gettime(2), CLOCK_BOOTTIME).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks, and a way to wait."""

    def now(self) -> datetime:
        """Return the time of day, in UTC; it may step in both directions."""

    def uptime(self) -> float:
        """Return the seconds since the boot, suspension included; they only grow."""

    async def wait(self, woken: asyncio.Event, seconds: float) -> None:
        """Wait until the event is set, or for so many seconds.

        A suspended host may wait longer: the timers of an event loop stand still meanwhile.
        """


class HostClock:
    """The clocks of this host."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def uptime(self) -> float:
        """Return the seconds since the boot, suspension included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def wait(self, woken: asyncio.Event, seconds: float) -> None:
        """Wait until the event is set, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await woken.wait()
