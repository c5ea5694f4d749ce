"""The logs of jobs in the ledger: one row a job, written when the job ends or is let go.

The ledger runs the statements; here is what they are.  Only the newest jobs keep their logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from syncd.sync.job_log import LogLine, lines_of, lines_text
from syncd.sync.ledger_rows import Row

JOBS_MAX = 2000
"""Jobs whose logs are kept."""


class JobLogRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], list[LogLine]]], list[list[LogLine]]],
        commit: Callable[[Callable[[Any], object]], None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs statements all or none."""
        self._query = query
        self._parse = parse
        self._commit = commit

    def add(self, job: str, lines: Sequence[LogLine]) -> None:
        """Write lines behind those that a job has, from an attempt that was interrupted."""
        put = "INSERT OR REPLACE INTO job_logs (job, lines) VALUES (?, ?)"

        def write(db: Any) -> None:
            db.execute(put, (job, lines_text([*self.of(job), *lines])))

        if lines:
            self._commit(write)

    def of(self, job: str) -> list[LogLine]:
        """Return the lines of a job, oldest first."""
        rows = self._query("SELECT lines FROM job_logs WHERE job = ?", job)
        return next(iter(self._parse(rows, lambda row: lines_of(row["lines"]))), [])

    def expire(self) -> None:
        """Strike the logs of all but the newest jobs."""
        self._commit(
            lambda db: db.execute(
                "DELETE FROM job_logs WHERE job NOT IN "
                "(SELECT id FROM jobs ORDER BY seq DESC LIMIT ?)",
                (JOBS_MAX,),
            )
        )
