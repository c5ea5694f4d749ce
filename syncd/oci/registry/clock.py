"""The clock of whoever answers: each answer of HTTP tells it (RFC 9110, 6.6.1: Date)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime


def clock_skew(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return how far the clock behind an answer is ahead of `now`.

    None where no clock is told, or where a cache answered (Age), whose answer is older.
    """
    try:
        told = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    if "Age" in headers or told.tzinfo is None:
        return None
    return told - now
