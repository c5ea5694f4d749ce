"""A notification: what people are told in one message, and what they have been told of each place.

Pure values.  The ledger keeps a notification until every receiver has it, and keeps what was told,
so that what people know is compared with what is true now, however often the process died between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from syncd.oci import Digest
from syncd.sync.conditions import Place

COUNT_MAX = 100
"""Notifications that are kept until they are delivered; of more, the oldest are dropped."""
AGE_MAX = timedelta(days=7)
"""For how long a notification is kept until it is delivered."""

_PAUSE_FIRST = timedelta(minutes=1)
_PAUSE_LONGEST = timedelta(hours=1)


class Severity(StrEnum):
    """What a notification means, by Apprise's names (`apprise.NotifyType`)."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Notification:
    """One message: a title that says what and how many, a body of lines, and what it means."""

    title: str
    body: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class Told:
    """What people were last told of a place: whether it is failing, and the digest it holds.

    `since` is when that began, and `at` when people were told of it, or last reminded.
    """

    place: Place
    failing: bool
    digest: Digest | None
    since: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A notification that some receivers do not have yet.

    `marks` name the receivers that have it; `tries` counts the attempts, of which the last was at
    `tried` and failed for `fault`.
    """

    number: int
    notification: Notification
    made: datetime
    marks: frozenset[str] = frozenset()
    tries: int = 0
    tried: datetime | None = None
    fault: str = ""

    @property
    def next_try(self) -> datetime:
        """When the next attempt is due: after 1, 2, 4, ... minutes, and then once an hour."""
        if self.tried is None:
            return self.made
        doublings = min(max(self.tries - 1, 0), 10)
        return self.tried + min(_PAUSE_FIRST * (1 << doublings), _PAUSE_LONGEST)

    def after(self, now: datetime, fault: str, marks: frozenset[str]) -> Undelivered:
        """Return the notification as it is after an attempt that receivers of `marks` took."""
        marks |= self.marks
        return replace(self, marks=marks, tries=self.tries + 1, tried=now, fault=fault)
