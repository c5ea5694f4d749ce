"""When the weekly run and the sweep are due: decided from two clocks and from what was done last.

Pure values; the schedule asks the clocks and does the work.  The sweep counts the seconds since the
last sweep, so that a step of the time of day moves no sweep.  The weekly run is due when the time
of the cron line that follows the last weekly run has come.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from syncd.config import ScheduleSettings, next_time

WAIT_MAX = 60.0
"""Seconds after which the clocks are looked at again: a timer stands still during suspension, and
the time of day may have been set."""

_AHEAD_MAX = timedelta(hours=1)


class Timetable:
    """What is due.  `weekly` and `swept` are when each kind of run was last done, by `now`'s clock.

    `uptime` is in seconds, of a clock that only grows.  A sweep that was done in the future, by a
    clock that has been set since, counts as done now.
    """

    def __init__(
        self,
        settings: ScheduleSettings,
        *,
        weekly: datetime,
        swept: datetime,
        now: datetime,
        uptime: float,
    ) -> None:
        self._settings = settings
        self._weekly = weekly
        self._weekly_next = next_time(settings.weekly, weekly)
        self._swept = uptime - max(0.0, (now - swept).total_seconds())

    def apply(self, settings: ScheduleSettings) -> None:
        """Take over other times; the times of the last runs stay."""
        self._settings = settings
        self._weekly_next = next_time(settings.weekly, self._weekly)

    def done_ahead(self, now: datetime) -> bool:
        """Tell whether the last weekly run is in the future by more than a clock's correction."""
        return self._weekly > now + _AHEAD_MAX

    def weekly_done(self, now: datetime) -> None:
        """Count the weekly run as done now."""
        self._weekly = now
        self._weekly_next = next_time(self._settings.weekly, now)

    def sweep_begun(self, uptime: float) -> None:
        """Count the next sweep from now on."""
        self._swept = uptime

    def weekly_due(self, now: datetime) -> bool:
        """Tell whether the weekly run is due."""
        return self._until_weekly(now) <= 0

    def sweep_due(self, uptime: float) -> bool:
        """Tell whether a sweep is due."""
        return self._until_sweep(uptime) <= 0

    def wait(self, now: datetime, uptime: float) -> float:
        """Return for how many seconds nothing is due; WAIT_MAX at most."""
        return max(0.0, min(WAIT_MAX, self._until_weekly(now), self._until_sweep(uptime)))

    def _until_weekly(self, now: datetime) -> float:
        return (self._weekly_next - now).total_seconds() if self._weekly_next else math.inf

    def _until_sweep(self, uptime: float) -> float:
        if self._settings.sweep is None:
            return math.inf
        return self._swept + max(1.0, self._settings.sweep.total_seconds()) - uptime
