"""Whoever is told: the services behind Apprise's URLs.

A URL carries passwords.  It is never part of an error, a log or a name: a receiver is called by its
position in the file and by its scheme.  Apprise's own log holds URLs as they are, and goes nowhere.
Of what a service answered, only its HTTP status is told.

Source: https://appriseit.com/library/
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from syncd.sync import Notification

if TYPE_CHECKING:
    from apprise import NotifyBase

_STATUS = re.compile(r"error=([1-5][0-9]{2})\b")
_MARK_DIGITS = 4
"""Hex digits of a URL's digest that the ledger keeps: too few to find the URL by."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One URL, whose position in its file is counted from 1."""

    position: int
    url: str = field(repr=False)

    def fault(self) -> str | None:
        """Return what is wrong with the URL, or None; nobody is asked."""
        return None if self._service() is not None else self._no_url()

    def name(self) -> str:
        """Return what a person calls it, such as `URL 2 (ntfy)`."""
        service = self._service()
        return f"URL {self.position} ({_scheme(service)})" if service else f"URL {self.position}"

    @property
    def mark(self) -> str:
        """Return a mark by which it is known again, and from which nothing can be learnt."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:_MARK_DIGITS]

    def tell(self, notification: Notification) -> str | None:
        """Deliver a notification; return None, or why that failed.  Blocking; never raise."""
        try:
            return self._tell(notification)
        except Exception as exc:  # noqa: BLE001 - a service's plugin may raise anything
            return f"{self.name()}: {type(exc).__name__}"

    def _tell(self, notification: Notification) -> str | None:
        import apprise

        service = self._service()
        if service is None:
            return self._no_url()
        if "overflow_mode" not in vars(service):  # the URL does not say it
            # A message that is too long for a service stays one, and is not refused.
            service.overflow_mode = apprise.OverflowMode.TRUNCATE
        sender = apprise.Apprise()
        sender.add(service)
        result = sender.notify(
            title=notification.title,
            body=notification.body,
            notify_type=apprise.NotifyType(notification.severity),
            body_format=apprise.NotifyFormat.TEXT,
        )
        if result:
            return None
        said = " ".join(entry.message for entry in result.logs())
        status = _STATUS.search(said)
        if status:
            return f"{self.name()} answers {status[1]}"
        if "Connection error" in said or "Socket" in said:
            return f"{self.name()} cannot be reached"
        return f"{self.name()} did not take the message"

    def _service(self) -> NotifyBase | None:
        import apprise  # only here: it takes its time, and most processes tell nobody

        # Its lines hold URLs as they are, passwords and all.
        logging.getLogger("apprise").propagate = False
        service = apprise.Apprise.instantiate(self.url)
        return service if isinstance(service, apprise.NotifyBase) else None

    def _no_url(self) -> str:
        return (
            f"URL {self.position} is not as Apprise wants it: see https://appriseit.com/services/"
        )


def receivers_of(urls: Sequence[str]) -> list[Receiver]:
    """Return the receivers behind URLs."""
    return [Receiver(position, url) for position, url in enumerate(urls, 1)]


def distinct_marks(receivers: Sequence[Receiver]) -> frozenset[str]:
    """Return the marks that no two receivers share: only these tell who has a message."""
    counts = Counter(receiver.mark for receiver in receivers)
    return frozenset(mark for mark, count in counts.items() if count == 1)


def _scheme(service: NotifyBase) -> str:
    found = service.schema
    return found if isinstance(found, str) else str(service.service_name)
