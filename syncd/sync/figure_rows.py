"""Figures of the ledger, in queries that stay cheap however much was published.

Metrics read them at each scrape, where parsing the whole provenance of every template would take a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from syncd.sync.ledger_rows import Row


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """A published template: the bytes of its file, and when it was made."""

    size: int
    created: datetime


@dataclass(frozen=True, slots=True)
class StorageFigures:
    """What is published in a target: how many different files, and their bytes."""

    files: int
    size: int


class FigureRows:
    """The queries.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Any]], list[Any]],
    ) -> None:
        """Take how the ledger asks and reads rows."""
        self._query = query
        self._parse = parse

    def templates(self) -> dict[tuple[str, str, str], TemplateFigures]:
        """Return what was published last, by reference, target and the digest of the tag."""
        rows = self._query(
            "SELECT reference, target, digest, size, created FROM templates WHERE published "
            "ORDER BY seq"
        )
        return dict(self._parse(rows, _template_of))

    def storages(self) -> dict[str, StorageFigures]:
        """Return what is published in each target, by the target's name."""
        rows = self._query(
            "SELECT target, count(*) AS files, sum(size) AS size FROM "
            "(SELECT DISTINCT target, name, size FROM templates WHERE published) GROUP BY target"
        )
        return dict(self._parse(rows, _storage_of))

    def undelivered(self) -> int:
        """Return how many notifications some receiver does not have yet."""
        return int(self._query("SELECT count(*) AS number FROM notifications")[0]["number"])

    def runs(self) -> dict[str, datetime]:
        """Return when each run of the schedule was last marked, by its name.

        The first start of the daemon marks each, so that it counts from there.
        """
        return dict(self._parse(self._query("SELECT run, at FROM clock"), _run_of))


def _template_of(row: Row) -> tuple[tuple[str, str, str], TemplateFigures]:
    figures = TemplateFigures(int(row["size"]), datetime.fromisoformat(row["created"]))
    return (str(row["reference"]), str(row["target"]), str(row["digest"])), figures


def _storage_of(row: Row) -> tuple[str, StorageFigures]:
    return str(row["target"]), StorageFigures(int(row["files"]), int(row["size"]))


def _run_of(row: Row) -> tuple[str, datetime]:
    return str(row["run"]), datetime.fromisoformat(row["at"]).astimezone(UTC)
