"""A line of cron, as crontab(5) has it, turned into a trigger of the schedule.

It is here because APScheduler counts weekdays from Monday and cron from Sunday: whoever writes 0
means Sunday, and would get Monday without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

_WEEK = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_INSTANT = timedelta(microseconds=1)
_PART = re.compile(r"(?:(?:\*|(\w+)-(\w+))(?:/([1-9]))?|(\w+))")


def cron_trigger(line: str) -> CronTrigger:
    """Return the trigger of a five-field cron line, in UTC; raise ValueError.

    Unlike cron's, a day of the month and a weekday must both hold where both are given.
    """
    from apscheduler.triggers.cron import CronTrigger

    fields = line.split()
    if len(fields) == 5:
        fields[4] = ",".join(_WEEK[day] for day in sorted(set(_weekdays(fields[4]))))
    return CronTrigger.from_crontab(" ".join(fields), timezone="UTC")


def next_time(line: str, after: datetime) -> datetime | None:
    """Return the first time of a cron line after a moment; None for a day that never comes."""
    found: datetime | None = cron_trigger(line).get_next_fire_time(None, after + _INSTANT)
    return found


def _weekdays(field: str) -> Iterator[int]:
    """Yield the days that a field names, counted from Sunday."""
    for part in field.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} names no weekdays")
        first, last, step, only = match.groups()
        begin, end = _day(only or first or "0"), _day(only or last or "6")
        if end == 0 < begin:
            end = 7
        if end < begin:
            raise ValueError(f"{part!r} ends before it begins")
        yield from (day % 7 for day in range(begin, end + 1, int(step or 1)))


def _day(word: str) -> int:
    if word in _WEEK:
        return _WEEK.index(word)
    if re.fullmatch("[0-7]", word):
        return int(word)
    raise ValueError(f"{word!r} is not a weekday: write sun to sat, or 0 to 7")
