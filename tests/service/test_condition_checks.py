"""What `condition_checks` promises: what the daemon found, as lines of a check."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.config.settings import Config
from syncd.oci.reference import Digest, Reference
from syncd.service.condition_checks import condition_results
from syncd.sync.conditions import (
    Condition,
    Current,
    Failed,
    Finding,
    Gone,
    Lack,
    Missing,
    Place,
    condition_after,
)
from syncd.targets.target import CheckResult

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
IMAGE = Reference.parse("ghcr.io/o/n")
DIGEST = Digest.of(b"one")
FINE = Current(DIGEST, ("t:vztmpl/one.tar.zst",))
DOWN = Failed("the registry is down", passing=True)


def config(sweep: str = "1h") -> Config:
    """Return a configuration that watches two tags by name, and others by pattern."""
    return Config.model_validate(
        {
            "schedule": {"sweep": sweep},
            "image": [{"repository": str(IMAGE), "tags": ["latest", "main", "re:^v"]}],
            "target": [{"name": "t", "type": "directory", "path": "/srv"}],
        }
    )


def condition(tag: str | None, *findings: Finding, hours: float = 5) -> Condition:
    """Return what is true of a tag after findings, the last of them so many hours ago."""
    place = Place(IMAGE.with_tag(tag) if tag else IMAGE, "t")
    found: Condition | None = None
    for finding in findings:
        found = condition_after(place, found, finding, NOW - timedelta(hours=hours))
    assert found is not None
    return found


def results(
    *conditions: Condition, swept: timedelta | None = None, sweep: str = "1h"
) -> list[CheckResult]:
    """Return the lines; `swept` is how long ago the last sweep began."""
    at = None if swept is None else NOW - swept
    return list(condition_results(config(sweep), conditions, at, NOW))


def test_nothing_yet() -> None:
    """Before the first start of a daemon there is nothing to tell."""
    assert results() == []


def test_in_order() -> None:
    """Tags in order are one line."""
    found = results(condition("latest", FINE), condition("main", FINE))
    assert found == [CheckResult(True, "watched tags", "2 in order at the last look")]


@pytest.mark.parametrize(
    ("found", "subject", "detail"),
    [
        (
            condition("latest", FINE, DOWN, DOWN),
            "tag ghcr.io/o/n:latest in t",
            "failing for 5 hours, 2 tries: the registry is down",
        ),
        (
            condition(None, DOWN, hours=1.5),
            "tags of ghcr.io/o/n in t",
            "failing for 90 minutes, 1 try: the registry is down",
        ),
        (
            condition("main", Gone(Lack.TAG, "not listed"), hours=72),
            "tag ghcr.io/o/n:main in t",
            "the registry has had no such tag for 3 days; is it misspelt?",
        ),
        (
            condition("main", FINE, Missing(DIGEST), hours=0.01),
            "tag ghcr.io/o/n:main in t",
            "its file has been missing for 36 seconds: the target does not list the template any "
            "more; it is published again",
        ),
    ],
)
def test_faults(found: Condition, subject: str, detail: str) -> None:
    """What fails or is missing is bad, with how long and why; the tags beside it are in order."""
    assert results(found, condition("v1", FINE)) == [
        CheckResult(False, subject, detail),
        CheckResult(True, "watched tags", "1 in order at the last look"),
    ]


@pytest.mark.parametrize(
    "found",
    [
        condition("v1", FINE, Gone(Lack.TAG, "not listed")),
        condition("old", FINE, Gone(Lack.WATCH, "not watched")),
        condition("latest", DOWN, Gone(Lack.WATCH, "not watched in this target")),
    ],
)
def test_what_may_go(found: Condition) -> None:
    """A tag that came by a pattern may go again, and what is not watched concerns no check."""
    assert results(found) == []


@pytest.mark.parametrize(
    ("swept", "sweep", "ok", "detail"),
    [
        (timedelta(minutes=20), "1h", True, "began 20 minutes ago"),
        (timedelta(hours=3), "1h", True, "began 3 hours ago"),
        (timedelta(hours=4), "2h", True, "began 4 hours ago"),
        (timedelta(days=9), "off", True, 'schedule.sweep is "off"'),
        (-timedelta(minutes=5), "1h", True, "began 0 seconds ago"),
        (
            timedelta(hours=4),
            "1h",
            False,
            "began 4 hours ago, and is due every 60 minutes: does the daemon run (systemctl status "
            "syncd)? its log says what keeps it",
        ),
    ],
)
def test_sweep(swept: timedelta, sweep: str, ok: bool, detail: str) -> None:
    """Three sweeps that were missed are bad; a clock that was set back is not."""
    assert results(swept=swept, sweep=sweep) == [CheckResult(ok, "last sweep", detail)]
