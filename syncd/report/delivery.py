"""Delivering what the ledger has to tell, to each receiver in order, until every one has it.

A notification is delivered at least once: a process that dies after a receiver took it and before
that is written down delivers it again.  A receiver that hangs or trickles is cut off after a
minute (`syncd.report.telling`), and keeps nobody waiting for longer, neither a job nor another
receiver; one that refuses or was cut off is asked again after 1, 2, 4, ... minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from syncd.errors import ConfigError
from syncd.report.receivers import Message, Receiver, distinct_marks, receivers_of
from syncd.report.telling import told
from syncd.sync import Counted, Executors, Handing, Ledger, Running, Undelivered

log = structlog.stdlib.get_logger()

_PATIENCE = 60.0  # seconds in which some receiver has to be done with some message


class Delivery:
    """Delivers notifications.  Lives in one event loop; raise LedgerError."""

    def __init__(
        self,
        running: Running,
        ledger: Ledger,
        executors: Executors,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """`patience` is how many seconds receivers have for one message."""
        self._running = running
        self._rows = ledger.notifications
        self._tally = ledger.tally
        self._executors = executors
        self._patience = patience

    async def deliver(self, now: datetime) -> timedelta | None:
        """Deliver what is due; return after what time something is, or None where nothing waits.

        Once one notification is due, all are tried, so that a receiver gets them in order.
        """
        ledger = self._executors.ledger
        for row in await ledger(self._rows.expire, now):
            self._count(Handing.DROPPED, 1)
            log.warning("notification dropped", title=row.notification.title, fault=row.fault)
        waiting = await ledger(self._rows.undelivered)
        if any(_wait(row, now) <= timedelta(0) for row in waiting):
            await self._deliver(waiting, now)
            waiting = await ledger(self._rows.undelivered)
        return min((_wait(row, now) for row in waiting), default=None)

    async def _deliver(self, waiting: Sequence[Undelivered], now: datetime) -> None:
        ledger = self._executors.ledger
        try:
            receivers = receivers_of(self._running.config.notify.urls())
        except ConfigError as exc:
            left = [row.after(now, str(exc), frozenset()) for row in waiting]
            log.warning("notification not delivered", waiting=len(left), error=str(exc))
            await ledger(self._rows.not_delivered, left)
            self._count(Handing.FAILED, len(left))
            return
        distinct = distinct_marks(receivers)
        has = {each: _has(each, waiting, distinct) for each in receivers}
        errands = [
            (each, [_message(row) for row in waiting if row.number not in has[each]])
            for each in receivers
        ]
        faults = []
        for end in await told(errands, self._patience):
            if end.fault is None:
                has[receivers[end.position - 1]].add(end.number)
            else:
                faults.append(end.fault)
        done, left = [], []
        for row in waiting:
            having = [each.mark for each in receivers if row.number in has[each]]
            if len(having) == len(receivers):
                done.append(row.number)
            else:
                left.append(row.after(now, "; ".join(faults), distinct & set(having)))
        for fault in faults:
            log.warning("notification not delivered", waiting=len(left), error=fault)
        await ledger(self._rows.delivered, done)
        if receivers:
            self._count(Handing.DELIVERED, len(done))
        await ledger(self._rows.not_delivered, left)
        self._count(Handing.FAILED, len(left))

    def _count(self, end: Handing, number: int) -> None:
        self._tally.add(Counted.NOTIFICATIONS, end, amount=number)


def _has(receiver: Receiver, waiting: Sequence[Undelivered], distinct: frozenset[str]) -> set[int]:
    """Return the notifications that a receiver has already."""
    known = receiver.mark if receiver.mark in distinct else None
    return {row.number for row in waiting if known in row.marks}


def _message(row: Undelivered) -> Message:
    said = row.notification
    return Message(row.number, said.title, said.body, said.severity.value)


def _wait(row: Undelivered, now: datetime) -> timedelta:
    """Return how long a notification waits; an attempt in the future was by another clock."""
    if row.tried is not None and row.tried > now:
        return timedelta(0)
    return row.next_try - now
