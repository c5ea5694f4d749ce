"""What `condition_rows` promises: conditions survive the process, and none stops the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from syncd.errors import LedgerError
from syncd.oci import Digest, Reference
from syncd.sync.conditions import Current, Failed, Gone, Lack, Place, Status
from syncd.sync.ledger import Ledger

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
REPOSITORY = Reference.parse("a.b:5000/c")
LATEST, MAIN, OTHER = (
    Place(Reference.parse(text), "local")
    for text in ("a.b:5000/c:latest", "a.b:5000/c:main", "a.b:5000/c-d:latest")
)
FINE = Current(Digest.of(b"one"), ("local:vztmpl/one.tar.zst",))
DOWN = Failed("down", passing=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as ledger:
        yield ledger


def test_kept(tmp_path: Path) -> None:
    """What was written is read by the next process, every field of it."""
    gone = Gone(Lack.TAG, "no tag \udcff")
    with Ledger(tmp_path / "ledger") as ledger:
        written = ledger.conditions.write([(LATEST, FINE), (MAIN, DOWN), (OTHER, gone)], NOW)
        ledger.conditions.write([(LATEST, DOWN)], NOW + timedelta(minutes=1))
    with Ledger(tmp_path / "ledger") as ledger:
        other, latest, main = ledger.conditions.all()
    assert [transition.before for transition in written] == [None] * 3
    assert main == written[1].after
    assert (latest.since, latest.updated) == (NOW + timedelta(minutes=1), NOW)
    assert (latest.digest, latest.volumes, latest.tries) == (FINE.digest, FINE.volumes, 1)
    assert (other.lack, other.reason) == (Lack.TAG, "no tag \\udcff")


def test_transitions(ledger: Ledger) -> None:
    """Findings of one place in one write follow each other; each transition is returned."""
    first, second = ledger.conditions.write([(LATEST, FINE), (LATEST, DOWN)], NOW)
    assert (first.before, second.before) == (None, first.after)
    assert second.after.status is Status.FAILING


def test_of(ledger: Ledger) -> None:
    """A repository's conditions are its tags' and its own, and those of no other repository."""
    itself = Place(REPOSITORY, "local")
    ledger.conditions.write([(place, DOWN) for place in (LATEST, MAIN, OTHER, itself)], NOW)
    assert {row.place for row in ledger.conditions.of(REPOSITORY)} == {LATEST, MAIN, itself}


def test_due(ledger: Ledger) -> None:
    """A failure is tried again once: from its time on, until somebody says that it is tried."""
    ledger.conditions.write([(LATEST, DOWN), (MAIN, FINE)], NOW)
    at = NOW + timedelta(minutes=1)
    assert ledger.conditions.next_try() == at
    assert ledger.conditions.due(at - timedelta(seconds=1)) == []
    assert [row.place for row in ledger.conditions.due(at)] == [LATEST]
    due = ledger.conditions.due(at)
    ledger.conditions.being_tried(due)
    assert ledger.conditions.due(at) == []
    assert ledger.conditions.next_try() is None
    ledger.conditions.write([(LATEST, DOWN)], at)
    ledger.conditions.being_tried(due)
    assert ledger.conditions.next_try() == at + timedelta(minutes=5)


def test_current(ledger: Ledger) -> None:
    """What a condition names as current is told for its target, also while it fails."""
    ledger.conditions.write([(LATEST, FINE), (LATEST, DOWN)], NOW)
    assert ledger.conditions.current("local") == {LATEST.reference: set(FINE.volumes)}
    assert ledger.conditions.current("other") == {}


def test_forget(ledger: Ledger) -> None:
    """A condition that is struck is gone, and the others stay."""
    ledger.conditions.write([(LATEST, DOWN), (MAIN, DOWN)], NOW)
    ledger.conditions.forget([LATEST])
    assert [row.place for row in ledger.conditions.all()] == [MAIN]


def test_all_or_none(ledger: Ledger) -> None:
    """A write that fails half-way leaves everything as it was."""
    ledger._db.execute(
        "CREATE TRIGGER t BEFORE INSERT ON conditions WHEN NEW.reference LIKE '%main' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(LedgerError):
        ledger.conditions.write([(LATEST, FINE), (MAIN, FINE)], NOW)
    assert ledger.conditions.all() == []


@pytest.mark.parametrize("column", ["status", "since", "volumes", "digest", "lack"])
def test_a_row_that_means_nothing(ledger: Ledger, column: str, tmp_path: Path) -> None:
    """A row that cannot be read keeps nobody from the others, and the next finding mends it."""
    ledger.conditions.write([(LATEST, FINE), (MAIN, FINE)], NOW)
    with closing(sqlite3.connect(tmp_path / "ledger")) as db, db:
        db.execute(
            f"UPDATE conditions SET {column} = '[' WHERE reference = ?", (str(LATEST.reference),)
        )
    assert [row.place for row in ledger.conditions.all()] == [MAIN]
    ledger.conditions.write([(LATEST, FINE)], NOW)
    assert [row.place for row in ledger.conditions.all()] == [LATEST, MAIN]
