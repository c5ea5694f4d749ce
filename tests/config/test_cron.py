"""What `cron` promises: a line means what it means to cron."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from syncd.config.cron import cron_trigger
from syncd.config.settings import Config


def weekdays(line: str) -> Iterator[str]:
    """Return the days of one week on which a cron line fires."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)  # a Sunday
    found, last = cron_trigger(line), None
    while (at := found.get_next_fire_time(last, moment)) < datetime(2026, 3, 8, tzinfo=UTC):
        yield f"{at:%a}"
        last, moment = at, at + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", "Sun Mon Tue Wed Thu Fri Sat"),
        ("sun", "Sun"),
        ("SUN", "Sun"),
        ("0", "Sun"),
        ("7", "Sun"),
        ("1", "Mon"),
        ("6", "Sat"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("0-4", "Sun Mon Tue Wed Thu"),
        ("5-7", "Sun Fri Sat"),
        ("0-7", "Sun Mon Tue Wed Thu Fri Sat"),
        ("mon-fri", "Mon Tue Wed Thu Fri"),
        ("sun-thu", "Sun Mon Tue Wed Thu"),
        ("0,3", "Sun Wed"),
        ("1-3,sat", "Mon Tue Wed Sat"),
        ("*/2", "Sun Tue Thu Sat"),
        ("1-5/2", "Mon Wed Fri"),
        ("0-6/3", "Sun Wed Sat"),
    ],
)
def test_weekdays(field: str, days: str) -> None:
    """Weekdays are numbered from Sunday, as cron does, with 7 for Sunday again."""
    assert " ".join(weekdays(f"30 23 * * {field}")) == days


@pytest.mark.parametrize("field", ["8", "12", "-1", "1-", "5-1", "x", "1/0", "*/0", "sun-x", ""])
def test_bad_weekdays(field: str) -> None:
    """A weekday that cron does not know is refused."""
    with pytest.raises(ValueError):
        cron_trigger(f"30 23 * * {field}")


def test_weekly_is_in_utc() -> None:
    """The default fires on Sunday at half past eleven at night, in UTC."""
    found = cron_trigger(Config().schedule.weekly).get_next_fire_time(
        None, datetime(2026, 3, 3, tzinfo=UTC)
    )
    assert found == datetime(2026, 3, 8, 23, 30, tzinfo=UTC)
