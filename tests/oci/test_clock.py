"""What `clock` promises: how far the clock of whoever answers is ahead, where that is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.oci.registry.clock import clock_skew

NOW = datetime(2026, 11, 27, 1, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "skew"),
    [
        ({"Date": "Fri, 27 Nov 2026 01:00:00 GMT"}, timedelta()),
        ({"Date": "Fri, 27 Nov 2026 01:01:00 GMT"}, timedelta(minutes=1)),
        ({"Date": "Fri, 27 Nov 2026 00:00:00 GMT"}, timedelta(hours=-1)),
        ({"Date": "Fri, 27 Nov 2026 00:00:00 GMT", "Age": "3600"}, None),
        ({"Date": "Fri, 27 Nov 2026 00:00:00 -0000"}, None),
        ({"Date": "today"}, None),
        ({}, None),
    ],
)
def test_skew(headers: dict[str, str], skew: timedelta | None) -> None:
    """The Date of an answer is compared with this host's clock; a cache's is older."""
    assert clock_skew(headers, NOW) == skew
