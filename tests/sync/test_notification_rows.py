"""What `notification_rows` promises: what is told and what tells it are written together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.errors import LedgerError
from syncd.oci.reference import Digest, Reference
from syncd.sync.conditions import Place
from syncd.sync.ledger import Ledger
from syncd.sync.ledger_rows import SCHEMA, text_of
from syncd.sync.notification import (
    AGE_MAX,
    COUNT_MAX,
    Notification,
    Severity,
    Told,
    Undelivered,
)

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
PLACE, OTHER = (Place(Reference.parse(f"a.b/c:{tag}"), "t") for tag in ("latest", "main"))
TOLD = Told(PLACE, True, Digest.of(b"one"), NOW, NOW)
MESSAGE = Notification("title \udcff", "body", Severity.FAILURE)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as ledger:
        yield ledger


def test_kept(tmp_path: Path) -> None:
    """What was told, what is to be delivered, and which run was told of survive the process."""
    with Ledger(tmp_path / "ledger") as ledger:
        second = replace(TOLD, place=OTHER, failing=False, digest=None)
        ledger.notifications.tell(MESSAGE, [TOLD, second], [], {"a run": NOW}, NOW)
    with Ledger(tmp_path / "ledger") as ledger:
        assert ledger.notifications.told() == {PLACE: TOLD, OTHER: second}
        (waiting,) = ledger.notifications.undelivered()
        assert waiting.notification == replace(MESSAGE, title="title \\udcff")
        assert (waiting.made, waiting.tries, waiting.next_try) == (NOW, 0, NOW)
        assert ledger.notifications.marked("a run") == NOW
        assert ledger.notifications.marked("another") is None
        ledger.notifications.tell(None, [], [OTHER], {}, NOW)
        assert ledger.notifications.told() == {PLACE: TOLD}
        ledger.notifications.delivered([waiting.number])
        assert ledger.notifications.undelivered() == []


def test_all_or_nothing(ledger: Ledger) -> None:
    """Where the message cannot be written, nothing counts as told."""
    ledger._write("DROP TABLE notifications")
    with pytest.raises(LedgerError):
        ledger.notifications.tell(MESSAGE, [TOLD], [], {}, NOW)
    assert ledger.notifications.told() == {}


def test_not_delivered(ledger: Ledger) -> None:
    """Who has a message, how often it was tried, and why in vain, is written down."""
    ledger.notifications.tell(MESSAGE, [], [], {}, NOW)
    (waiting,) = ledger.notifications.undelivered()
    tried = replace(waiting, marks=frozenset({"ab12"}), tries=1, tried=NOW, fault="it refuses")
    ledger.notifications.not_delivered([tried])
    assert ledger.notifications.undelivered() == [tried]


@pytest.mark.parametrize(
    ("tries", "minutes"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)]
)
def test_backoff(tries: int, minutes: int) -> None:
    """The pauses double, up to an hour."""
    row = Undelivered(1, MESSAGE, NOW, tries=tries, tried=NOW)
    assert row.next_try - NOW == timedelta(minutes=minutes)


def test_bounds(ledger: Ledger) -> None:
    """What is too old is dropped, and of what is too much the oldest."""
    rows = ledger.notifications
    for number in range(COUNT_MAX + 2):
        rows.tell(replace(MESSAGE, title=str(number)), [], [], {}, NOW)
    assert [row.notification.title for row in rows.expire(NOW)] == ["0", "1"]
    assert rows.expire(NOW + AGE_MAX) == []
    assert len(rows.undelivered()) == COUNT_MAX
    assert len(rows.expire(NOW + AGE_MAX + timedelta(seconds=1))) == COUNT_MAX
    assert rows.undelivered() == []


def test_an_older_ledger(tmp_path: Path) -> None:
    """After an upgrade people count as told of what was true before."""
    path, digest = tmp_path / "ledger", Digest.of(b"one")
    position = next(at for at, entry in enumerate(SCHEMA) if "CREATE TABLE told" in entry)
    moment = text_of(NOW)
    with closing(sqlite3.connect(path)) as db:
        for entry in SCHEMA[:position]:
            db.executescript(entry)
        for place, status, held in ((PLACE, "ok", str(digest)), (OTHER, "failing", None)):
            db.execute(
                "INSERT INTO conditions VALUES "
                "(?, 't', ?, ?, ?, '', 0, 0, NULL, NULL, ?, '[]', NULL)",
                (str(place.reference), status, moment, moment, held),
            )
        db.execute(f"PRAGMA user_version = {position}")
        db.commit()
    with Ledger(path) as ledger:
        assert ledger.notifications.told() == {
            PLACE: Told(PLACE, False, digest, NOW, NOW),
            OTHER: Told(OTHER, True, None, NOW, NOW),
        }
