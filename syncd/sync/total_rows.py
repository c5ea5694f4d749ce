"""The totals in the ledger: what was ever counted, one row a series.

A series is what is counted and its labels.  Several processes add to one ledger, each in a
transaction, so that nothing is counted twice or lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from syncd.sync.ledger_rows import Row

Series = tuple[str, tuple[str, ...]]
"""What is counted, and its labels."""

JOBS = "jobs"
"""What ends of jobs are counted as: labelled with the cause, the result, and what was looked at."""
REPOSITORY, IMAGE = "repository", "image"
"""What a job looks at: every watched tag of a repository, by jobs of their own; or one image."""

ADD = (
    "INSERT INTO totals VALUES (?, ?, ?) "
    "ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value"
)
"""The statement that adds to a total: what is counted, its labels as JSON, how much."""


class TotalRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[
            [Iterable[Any], Callable[[Row], tuple[Series, float]]], list[tuple[Series, float]]
        ],
        commit: Callable[[Callable[[Any], object]], None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs statements all or none."""
        self._query = query
        self._parse = parse
        self._commit = commit

    def all(self) -> dict[Series, float]:
        """Return every total."""
        return dict(self._parse(self._query("SELECT * FROM totals"), _total_of))

    def jobs(self) -> dict[tuple[str, ...], float]:
        """Return how many jobs ended, by the labels of JOBS."""
        rows = self._query("SELECT * FROM totals WHERE name = ?", JOBS)
        return {labels: value for (_, labels), value in self._parse(rows, _total_of)}

    def add(self, amounts: Mapping[Series, float]) -> None:
        """Add to totals, all or none."""
        rows = [(name, json.dumps(labels), amount) for (name, labels), amount in amounts.items()]
        if rows:
            self._commit(lambda db: db.executemany(ADD, rows))


def _total_of(row: Row) -> tuple[Series, float]:
    labels = json.loads(row["labels"])
    if not all(isinstance(label, str) for label in labels):
        raise ValueError("its labels are no texts")
    return (str(row["name"]), tuple(labels)), float(row["value"])
