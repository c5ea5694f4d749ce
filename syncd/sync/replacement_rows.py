"""The replacements in the ledger: a row for each, written before each of its steps.

The ledger runs the statements; here is what they are and what their rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from syncd.sync.ledger_rows import Row, moment_of, text_of
from syncd.sync.readiness import Readiness
from syncd.sync.replacement import Replacement, ReplacementState
from syncd.targets import RootSwap, SwapStep


class ReplacementRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Replacement]], list[Replacement]],
        write: Callable[..., None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs one statement."""
        self._query = query
        self._parse = parse
        self._write = write

    def put(self, replacement: Replacement) -> None:
        """Write down a replacement as it is now; of one container one at most is under way."""
        self._write(
            "INSERT INTO replacements VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE "
            "SET state = excluded.state, step = excluded.step, swap = excluded.swap, "
            "ended = excluded.ended, reason = excluded.reason",
            replacement.id,
            replacement.target,
            replacement.swap.vmid,
            replacement.state,
            replacement.step,
            replacement.swap.text(),
            replacement.readiness.text,
            replacement.readiness.timeout,
            replacement.keep,
            None if replacement.ended is None else text_of(replacement.ended),
            replacement.reason,
        )

    def of(self, *states: ReplacementState) -> list[Replacement]:
        """Return the replacements in one of these states, oldest first."""
        rows = self._parse(self._query("SELECT * FROM replacements ORDER BY rowid"), _replacement)
        return [found for found in rows if found.state in states]


def _replacement(row: Row) -> Replacement:
    """Return the replacement of a row; raise ValueError or TypeError if the row is none."""
    return Replacement(
        row["target"],
        RootSwap.parse(row["swap"]),
        SwapStep(row["step"]),
        ReplacementState(row["state"]),
        Readiness(row["wait_for"], row["timeout"]),
        row["keep"],
        moment_of(row["ended"]),
        row["reason"],
        row["id"],
    )
