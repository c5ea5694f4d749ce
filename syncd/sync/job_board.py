"""The jobs of the ledger as those see them who look on: what runs, what is newest, what changed.

The ledger runs the statements; here is what they are.  Nothing is written: of a process that died
the ledger says that its jobs run until the next daemon starts, and `left` tells what is true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from syncd.sync.job import ABANDONED, Cause, JobRecord, State
from syncd.sync.ledger_rows import Row, job_record
from syncd.sync.process import runs


class JobBoard:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], JobRecord]], list[JobRecord]],
    ) -> None:
        """Take how the ledger asks and reads rows."""
        self._query = query
        self._parse = parse

    def newest(self, limit: int) -> list[JobRecord]:
        """Return the running jobs and the newest, newest first; `limit` of each at most."""
        return self._read(
            "SELECT * FROM jobs WHERE id IN (SELECT id FROM jobs ORDER BY seq DESC LIMIT ?1) "
            "OR id IN (SELECT id FROM jobs WHERE state = ?2 ORDER BY seq DESC LIMIT ?1) "
            "ORDER BY seq DESC",
            limit,
            State.RUNNING,
        )

    def of(self, jobs: Sequence[str]) -> list[JobRecord]:
        """Return the jobs with these ids, oldest first; those that nobody knows are left out."""
        return self._read(
            "SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY seq",
            json.dumps(list(jobs)),
        )

    def left(self, limit: int) -> list[JobRecord]:
        """Return the newest jobs, newest first, as dead processes left them.

        A command's job ended with its process; a daemon's waits for the next daemon.
        """
        rows = self._query("SELECT * FROM jobs ORDER BY seq DESC LIMIT ?", limit)
        return self._parse(rows, _as_left)

    def waiting(self) -> int:
        """Return how many jobs wait."""
        (row,) = self._query("SELECT count(*) AS number FROM jobs WHERE state = ?", State.QUEUED)
        return int(row["number"])

    def _read(self, sql: str, *values: object) -> list[JobRecord]:
        return self._parse(self._query(sql, *values), job_record)


def _as_left(row: Row) -> JobRecord:
    record = job_record(row)
    if record.state is State.DONE or runs(row["process"]):
        return record
    if record.job.cause is Cause.CLI:
        return replace(record, state=State.DONE, outcome=ABANDONED)
    return replace(record, state=State.QUEUED)
