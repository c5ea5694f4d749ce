"""The conditions in the ledger: a row for each watched reference in each target.

The ledger runs the statements; here is what they are and what their rows mean.  Findings are turned
into conditions within one transaction, so that two looks at one place never lose each other's end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from syncd.oci import Digest, Reference
from syncd.sync.conditions import (
    Condition,
    Finding,
    Lack,
    Place,
    Status,
    condition_after,
    due,
)
from syncd.sync.ledger_rows import Row, moment_of, text_of


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that was written: what was true before, and what is true now."""

    before: Condition | None
    after: Condition


class ConditionRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Condition]], list[Condition]],
        commit: Callable[[Callable[[Any], object]], None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs statements all or none."""
        self._query = query
        self._parse = parse
        self._commit = commit

    def all(self) -> list[Condition]:
        """Return every condition, by reference and target."""
        return self._read("SELECT * FROM conditions ORDER BY reference, target")

    def of(self, repository: Reference) -> list[Condition]:
        """Return the conditions of a repository's tags, and of the repository itself."""
        name = repository.name
        return self._read(
            "SELECT * FROM conditions WHERE reference = ?1 OR "
            "(reference > ?1 || ':' AND reference < ?1 || ';') ORDER BY reference, target",
            name,
        )

    def due(self, now: datetime) -> list[Condition]:
        """Return the failures that are to be tried again now."""
        rows = self._read("SELECT * FROM conditions WHERE next_try IS NOT NULL")
        return [condition for condition in rows if due(condition, now)]

    def next_try(self) -> datetime | None:
        """Return when the next failure is to be tried again."""
        rows = self._read("SELECT * FROM conditions WHERE next_try IS NOT NULL")
        return min((row.next_try for row in rows if row.next_try), default=None)

    def current(self, target: str) -> dict[Reference, frozenset[str]]:
        """Return the volume ids that the conditions of a target name as current, by reference."""
        rows = self._read("SELECT * FROM conditions WHERE target = ?", target)
        return {row.place.reference: frozenset(row.volumes) for row in rows}

    def write(self, findings: Iterable[tuple[Place, Finding]], now: datetime) -> list[Transition]:
        """Turn findings into conditions, all or none; return what was written."""
        written: list[Transition] = []
        found = list(findings)

        def put(db: Any) -> None:
            for place, finding in found:
                before = self._one(place)
                after = condition_after(place, before, finding, now)
                if after is not None:
                    db.execute(_PUT, _values(after))
                    written.append(Transition(before, after))

        if found:
            self._commit(put)
        return written

    def being_tried(self, conditions: Iterable[Condition]) -> None:
        """Write down that these failures are tried again, so that this happens once.

        A failure that has been written anew since keeps its own next try.
        """
        clear = (
            "UPDATE conditions SET next_try = NULL "
            "WHERE reference = ? AND target = ? AND next_try = ?"
        )
        tried = [
            (str(row.place.reference), row.place.target, text_of(row.next_try))
            for row in conditions
            if row.next_try
        ]
        if tried:
            self._commit(lambda db: db.executemany(clear, tried))

    def forget(self, places: Iterable[Place]) -> None:
        """Strike conditions of what is not to be told any more."""
        keys = _keys(places)
        delete = "DELETE FROM conditions WHERE reference = ? AND target = ?"
        if keys:
            self._commit(lambda db: db.executemany(delete, keys))

    def forget_gone(self, place: Place) -> None:
        """Strike a condition, unless a look found since that the place is not gone."""
        delete = "DELETE FROM conditions WHERE reference = ? AND target = ? AND lack IS NOT NULL"
        self._commit(lambda db: db.executemany(delete, _keys([place])))

    def _one(self, place: Place) -> Condition | None:
        found = self._read(
            "SELECT * FROM conditions WHERE reference = ? AND target = ?",
            str(place.reference),
            place.target,
        )
        return found[0] if found else None

    def _read(self, sql: str, *values: object) -> list[Condition]:
        return self._parse(self._query(sql, *values), condition_of)


_PUT = "INSERT OR REPLACE INTO conditions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"


def condition_of(row: Row) -> Condition:
    """Return the condition of a row; raise SyncdError, ValueError or TypeError if it is none."""
    return Condition(
        place=Place(Reference.parse(row["reference"]), row["target"]),
        status=Status(row["status"]),
        since=datetime.fromisoformat(row["since"]),
        checked=datetime.fromisoformat(row["checked"]),
        reason=row["reason"],
        passing=bool(row["passing"]),
        tries=row["tries"],
        next_try=moment_of(row["next_try"]),
        updated=moment_of(row["updated"]),
        digest=Digest.parse(row["digest"]) if row["digest"] else None,
        volumes=tuple(json.loads(row["volumes"])),
        lack=Lack(row["lack"]) if row["lack"] else None,
    )


def _values(condition: Condition) -> Sequence[object]:
    return (
        str(condition.place.reference),
        condition.place.target,
        condition.status,
        text_of(condition.since),
        text_of(condition.checked),
        # It may quote a file's name, and that may be any bytes (PEP 383).
        condition.reason.encode("utf-8", "backslashreplace").decode(),
        condition.passing,
        condition.tries,
        text_of(condition.next_try) if condition.next_try else None,
        text_of(condition.updated) if condition.updated else None,
        str(condition.digest) if condition.digest else None,
        json.dumps(condition.volumes),
        condition.lack,
    )


def _keys(places: Iterable[Place]) -> list[tuple[str, str]]:
    return [(str(place.reference), place.target) for place in places]
