"""What `timetable` promises: what is due, whatever the time of day is set to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.config import ScheduleSettings
from syncd.service.timetable import WAIT_MAX, Timetable

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)  # a Thursday
SUNDAY = datetime(2026, 11, 29, 23, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
UP = 5000.0


def made(
    *, weekly: datetime = NOW, swept: datetime = NOW, now: datetime = NOW, line: str = "30 23 * * 0"
) -> Timetable:
    """Return a timetable of an hourly sweep and a run on Sundays, made at UP."""
    settings = ScheduleSettings(weekly=line, sweep=HOUR)
    return Timetable(settings, weekly=weekly, swept=swept, now=now, uptime=UP)


def test_weekly() -> None:
    """The weekly run is due from the time of its line on, until it is done."""
    table = made()
    assert not table.weekly_due(SUNDAY - timedelta(seconds=1))
    assert table.weekly_due(SUNDAY)
    assert table.weekly_due(SUNDAY + timedelta(days=3))
    table.weekly_done(SUNDAY)
    assert not table.weekly_due(SUNDAY + timedelta(days=6))
    assert table.weekly_due(SUNDAY + timedelta(days=7))


def test_a_small_correction_repeats_nothing() -> None:
    """A clock set back by minutes, just after the weekly run, does not make it run twice."""
    table = made()
    table.weekly_done(SUNDAY + timedelta(seconds=1))
    before = SUNDAY - timedelta(minutes=10)
    assert not table.done_ahead(before)
    assert not table.weekly_due(before)
    assert not table.weekly_due(SUNDAY)


@pytest.mark.parametrize(("ahead", "expected"), [(59, False), (61, True), (60 * 24 * 900, True)])
def test_a_run_done_in_the_future(ahead: int, expected: bool) -> None:
    """A weekly run that was done more than an hour in the future was dated by a wrong clock."""
    assert made(weekly=NOW + timedelta(minutes=ahead)).done_ahead(NOW) is expected


def test_a_day_that_never_comes() -> None:
    """A line that names the thirtieth of February is never due."""
    table = made(line="0 0 30 2 *")
    assert not table.weekly_due(NOW + timedelta(days=10_000))
    assert table.wait(NOW, UP) == WAIT_MAX


@pytest.mark.parametrize(
    ("ago", "left"),
    [
        (timedelta(0), 3600),
        (timedelta(minutes=40), 1200),
        (timedelta(hours=1), 0),
        (timedelta(days=900), 0),
        (timedelta(days=-900), 3600),
    ],
    ids=["just now", "a while ago", "an hour ago", "long ago", "in the future"],
)
def test_sweep_at_start(ago: timedelta, left: int) -> None:
    """A start goes on counting from the last sweep; one in the future counts as done now."""
    table = made(swept=NOW - ago)
    assert table.sweep_due(UP + left)
    assert left == 0 or not table.sweep_due(UP + left - 1)


def test_sweep_counts_from_its_beginning() -> None:
    """A sweep is due an hour after the last one began."""
    table = made()
    table.sweep_begun(UP + 100)
    assert not table.sweep_due(UP + 3699)
    assert table.sweep_due(UP + 3700)


def test_a_sweep_that_is_off() -> None:
    """No sweep is ever due where the configuration has it off."""
    table = made()
    table.apply(ScheduleSettings(weekly="30 23 * * 0", sweep=None))
    assert not table.sweep_due(UP + 1e9)


def test_another_interval() -> None:
    """Another interval is counted from the last sweep."""
    table = made()
    table.apply(ScheduleSettings(sweep=timedelta(minutes=20)))
    assert not table.sweep_due(UP + 1199)
    assert table.sweep_due(UP + 1200)


def test_wait() -> None:
    """Nobody waits longer than a minute, nor beyond what is due next."""
    table = made()
    assert table.wait(NOW, UP) == WAIT_MAX
    assert table.wait(NOW, UP + 3590) == 10
    assert table.wait(SUNDAY - timedelta(seconds=7), UP) == 7
    assert table.wait(SUNDAY + HOUR, UP + 1e6) == 0
