"""Delivering what the ledger has to tell, to each receiver in order, until every one has it.

A notification is delivered at least once: a process that dies after a receiver took it and before
that is written down delivers it again.  A receiver that hangs keeps nobody waiting, neither a job
nor another receiver, and a receiver that refuses is asked again after 1, 2, 4, ... minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from syncd.errors import ConfigError
from syncd.report.receivers import Receiver, distinct_marks, receivers_of
from syncd.sync import Counted, Executors, Handing, Ledger, Running, Undelivered

log = structlog.stdlib.get_logger()

_PATIENCE = 60.0  # seconds for one receiver and one message


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of a receiver: the notifications that it has by now, and why it has no more."""

    receiver: Receiver
    has: frozenset[int]
    fault: str | None


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
        """`patience` is how many seconds a receiver has for one message."""
        self._running = running
        self._rows = ledger.notifications
        self._tally = ledger.tally
        self._executors = executors
        self._patience = patience
        self._hanging: dict[str, tuple[int, asyncio.Future[str | None]]] = {}

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
        attempts = await asyncio.gather(
            *(self._attempt(each, waiting, distinct) for each in receivers)
        )
        faults = [attempt.fault for attempt in attempts if attempt.fault]
        done, left = [], []
        for row in waiting:
            having = [each.receiver.mark for each in attempts if row.number in each.has]
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

    async def _attempt(
        self, receiver: Receiver, waiting: Sequence[Undelivered], distinct: frozenset[str]
    ) -> _Attempt:
        """Tell a receiver in order what it does not know, up to the first failure."""
        known = receiver.mark if receiver.mark in distinct else None
        has = {row.number for row in waiting if known in row.marks}
        if (hanging := self._hanging.get(receiver.url)) is not None:
            number, end = hanging
            if not end.done():
                return _Attempt(receiver, frozenset(has), f"URL {receiver.position} still hangs")
            del self._hanging[receiver.url]
            if end.result() is None:
                has.add(number)
        for row in waiting:
            if row.number not in has:
                fault = await self._told(receiver, row)
                if fault is not None:
                    return _Attempt(receiver, frozenset(has), fault)
                has.add(row.number)
        return _Attempt(receiver, frozenset(has), None)

    async def _told(self, receiver: Receiver, row: Undelivered) -> str | None:
        """Tell a receiver; return why that failed.  What hangs goes on, and is not tried beside."""
        end = asyncio.ensure_future(self._executors.telling.run(receiver.tell, row.notification))
        done, _ = await asyncio.wait({end}, timeout=self._patience)
        if done:
            return end.result()
        self._hanging[receiver.url] = (row.number, end)
        return f"URL {receiver.position} gave no answer within {self._patience:g} s"


def _wait(row: Undelivered, now: datetime) -> timedelta:
    """Return how long a notification waits; an attempt in the future was by another clock."""
    if row.tried is not None and row.tried > now:
        return timedelta(0)
    return row.next_try - now
