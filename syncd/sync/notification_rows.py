"""The notifications in the ledger: what people were told, and what is to be delivered yet.

The ledger runs the statements; here is what they are and what their rows mean.  What people are
told and the message that tells them are written together, so that a process that dies tells nothing
twice and forgets nothing.  No URL of a receiver is ever written: it carries passwords.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from syncd.oci import Digest, Reference
from syncd.sync.conditions import Place
from syncd.sync.ledger_rows import Row, moment_of, text_of
from syncd.sync.notification import (
    AGE_MAX,
    COUNT_MAX,
    Notification,
    Severity,
    Told,
    Undelivered,
)


class NotificationRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Any]], list[Any]],
        commit: Callable[[Callable[[Any], object]], None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs statements all or none."""
        self._query = query
        self._parse = parse
        self._commit = commit

    def told(self) -> dict[Place, Told]:
        """Return what people were last told, by place."""
        rows: list[Told] = self._parse(self._query("SELECT * FROM told"), _told)
        return {row.place: row for row in rows}

    def tell(
        self,
        notification: Notification | None,
        told: Iterable[Told],
        forgotten: Iterable[Place],
        runs: Mapping[str, datetime],
        now: datetime,
    ) -> None:
        """Write down what people are told from now on, and the message that tells it, all or none.

        Of `forgotten` places nothing counts as told; `runs` are marked as `Ledger.mark_run` does.
        """
        news = [
            (str(t.place.reference), t.place.target, t.failing, str(t.digest or ""),
             text_of(t.since), text_of(t.at))
            for t in told
        ]  # fmt: skip
        gone = [(str(place.reference), place.target) for place in forgotten]
        marks = [(run, text_of(at)) for run, at in runs.items()]

        def write(db: Any) -> None:
            db.executemany("DELETE FROM told WHERE reference = ? AND target = ?", gone)
            db.executemany("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)", news)
            db.executemany("INSERT OR REPLACE INTO clock VALUES (?, ?)", marks)
            if notification is not None:
                db.execute(
                    "INSERT INTO notifications (title, body, severity, made) VALUES (?, ?, ?, ?)",
                    (
                        _text(notification.title),
                        _text(notification.body),
                        notification.severity,
                        text_of(now),
                    ),
                )

        if notification is not None or news or gone or marks:
            self._commit(write)

    def marked(self, run: str) -> datetime | None:
        """Return when a run was last marked, or None when it never was."""
        rows = self._query("SELECT at FROM clock WHERE run = ?", run)
        return next(iter(self._parse(rows, lambda row: moment_of(row["at"]))), None)

    def undelivered(self) -> list[Undelivered]:
        """Return what some receivers do not have yet, oldest first."""
        return self._parse(self._query("SELECT * FROM notifications ORDER BY number"), _undelivered)

    def delivered(self, numbers: Iterable[int]) -> None:
        """Strike notifications that every receiver has."""
        self._strike(numbers)

    def not_delivered(self, tried: Iterable[Undelivered]) -> None:
        """Write down which receivers have notifications, and how the last attempt failed."""
        update = (
            "UPDATE notifications SET marks = ?, tries = ?, tried = ?, fault = ? WHERE number = ?"
        )
        rows = [
            (
                json.dumps(sorted(row.marks)),
                row.tries,
                text_of(row.tried) if row.tried else None,
                row.fault,
                row.number,
            )
            for row in tried
        ]
        if rows:
            self._commit(lambda db: db.executemany(update, rows))

    def expire(self, now: datetime) -> list[Undelivered]:
        """Drop what is too old, and the oldest of what is too much; return what was dropped."""
        rows = self.undelivered()
        surplus = max(len(rows) - COUNT_MAX, 0)
        dropped = [row for at, row in enumerate(rows) if at < surplus or now - row.made > AGE_MAX]
        self._strike(row.number for row in dropped)
        return dropped

    def _strike(self, numbers: Iterable[int]) -> None:
        keys = [(number,) for number in numbers]
        if keys:
            delete = "DELETE FROM notifications WHERE number = ?"
            self._commit(lambda db: db.executemany(delete, keys))


def _told(row: Row) -> Told:
    """Return what was told; raise SyncdError, ValueError or TypeError if the row says nothing."""
    return Told(
        Place(Reference.parse(row["reference"]), row["target"]),
        bool(row["failing"]),
        Digest.parse(row["digest"]) if row["digest"] else None,
        datetime.fromisoformat(row["since"]),
        datetime.fromisoformat(row["at"]),
    )


def _undelivered(row: Row) -> Undelivered:
    """Return the notification of a row; raise ValueError or TypeError if the row is none."""
    return Undelivered(
        row["number"],
        Notification(row["title"], row["body"], Severity(row["severity"])),
        datetime.fromisoformat(row["made"]),
        frozenset(json.loads(row["marks"])),
        row["tries"],
        moment_of(row["tried"]),
        row["fault"],
    )


def _text(text: str) -> str:
    """Return a text that may quote a file's name, which may be any bytes (PEP 383)."""
    return text.encode("utf-8", "backslashreplace").decode()
