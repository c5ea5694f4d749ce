"""What files of targets were found to be, in the ledger: a row for each file, the last finding.

The ledger runs the statements; here is what they are and what their rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from syncd.oci import Digest
from syncd.sync.ledger_rows import Row, text_of
from syncd.sync.proof import Proof, ProofState


class ProofRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Proof]], list[Proof]],
        write: Callable[..., None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs one statement."""
        self._query = query
        self._parse = parse
        self._write = write

    def put(self, proof: Proof) -> None:
        """Write down what a file of a target was found to be, in place of what was known."""
        self._write(
            "INSERT OR REPLACE INTO proofs (target, name, size, file_digest, state, at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            proof.target,
            proof.name,
            proof.size,
            str(proof.file_digest),
            proof.state,
            text_of(proof.at),
        )

    def of(self, target: str, name: str) -> Proof | None:
        """Return what a file was last found to be, or None when nobody looked."""
        rows = self._query("SELECT * FROM proofs WHERE target = ? AND name = ?", target, name)
        return next(iter(self._parse(rows, _proof)), None)

    def foreign(self, target: str) -> list[Proof]:
        """Return what was found of the files of a target that this ledger did not make."""
        rows = self._query(
            "SELECT * FROM proofs WHERE target = ?1 AND name NOT IN "
            "(SELECT name FROM templates WHERE target = ?1) ORDER BY name",
            target,
        )
        return self._parse(rows, _proof)


def _proof(row: Row) -> Proof:
    """Return the proof of a row; raise SyncdError, ValueError or TypeError if it is none."""
    return Proof(
        target=row["target"],
        name=row["name"],
        size=row["size"],
        file_digest=Digest.parse(row["file_digest"]),
        state=ProofState(row["state"]),
        at=datetime.fromisoformat(row["at"]),
    )
