"""Notifications: what is news becomes one message, which is in the ledger before it is sent.

What counts as told and the message that tells it are one transaction of the ledger: a process that
dies before it tells the same news later, and one that dies after it tells nothing twice.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from syncd.config import NotifySettings
from syncd.errors import ConfigError
from syncd.report.message import message_of
from syncd.report.news import News, news_of
from syncd.report.summary import Summary, summary_of
from syncd.sync import (
    Condition,
    Executors,
    Ledger,
    Notification,
    Replacement,
    ReplacementState,
    Running,
)

log = structlog.stdlib.get_logger()

_WEEKLY = "weekly"  # as the schedule marks the run
_WEEKLY_TOLD = "weekly told"
_RETURNS_TOLD = "returns told"
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class _Pending:
    """What is to be told, and what is marked as told of then, with the time up to which it is."""

    news: News
    summary: Summary | None
    returned: tuple[Replacement, ...]
    marks: dict[str, datetime]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell, and nothing to write down."""
        return not (self.news.items or self.news.told or self.news.forgotten or self.marks)

    def message(self, host: str, now: datetime) -> Notification | None:
        """Return the message that tells it, or None where nobody wants to hear of it."""
        if not self.news.items and self.summary is None and not self.returned:
            return None
        return message_of(self.news, host, now, summary=self.summary, returned=self.returned)


class Notifier:
    """Turns news into notifications.  Lives in one event loop; raise LedgerError."""

    def __init__(self, running: Running, ledger: Ledger, executors: Executors) -> None:
        self._running = running
        self._ledger = ledger
        self._executors = executors
        self._host = socket.gethostname()

    async def has_news(self, now: datetime) -> bool:
        """Tell whether `tell` would do anything."""
        return not (await self._executors.ledger(self._pending, now)).is_empty

    async def tell(self, now: datetime) -> bool:
        """Write the news into the ledger as one message; return whether there is a message.

        What nobody wants to hear counts as told without a message.
        """
        return await self._executors.ledger(self._tell, now)

    def _tell(self, now: datetime) -> bool:
        pending = self._pending(now)
        news, message = pending.news, pending.message(self._host, now)
        self._ledger.notifications.tell(message, news.told, news.forgotten, pending.marks, now)
        if message is not None:
            log.info("notification", title=message.title)
        return message is not None

    def _pending(self, now: datetime) -> _Pending:
        config, ledger = self._running.config, self._ledger
        conditions, told = ledger.conditions.all(), ledger.notifications.told()
        heard = is_heard(config.notify)
        wanted = config.notify.on if heard else frozenset()
        summary, marks = self._summary(conditions, wanted="weekly" in wanted)
        returned, more = self._returned(wanted="failing" in wanted)
        news = news_of(config, conditions, told, now, heard=heard)
        return _Pending(news, summary, returned, marks | more)

    def _summary(
        self, conditions: list[Condition], *, wanted: bool
    ) -> tuple[Summary | None, dict[str, datetime]]:
        """Return the summary of a weekly run that nobody was told of, and the run's mark."""
        rows = self._ledger.notifications
        run, last = rows.marked(_WEEKLY), rows.marked(_WEEKLY_TOLD)
        if run is None or run == last:
            return None, {}
        summary = None
        if last is not None and wanted:
            templates = self._ledger.templates()
            summary = summary_of(self._running.config, conditions, templates, last)
        return summary, {_WEEKLY_TOLD: run}

    def _returned(self, *, wanted: bool) -> tuple[tuple[Replacement, ...], dict[str, datetime]]:
        """Return the replacements that went back and that nobody was told of, and their mark."""
        undone = self._ledger.replacements.of(ReplacementState.UNDONE)
        ends = [(row.ended or _EPOCH, row) for row in undone]
        last = self._ledger.notifications.marked(_RETURNS_TOLD)
        newest = max((ended for ended, _ in ends), default=_EPOCH)
        if last is not None and newest <= last:
            return (), {}
        told = newest if last is None or not wanted else last
        returned = tuple(row for ended, row in ends if ended > told)
        return returned, {_RETURNS_TOLD: newest}


def is_heard(settings: NotifySettings) -> bool:
    """Tell whether anybody is told; a file that cannot be read now may be readable later."""
    try:
        return bool(settings.urls())
    except ConfigError:
        return True
