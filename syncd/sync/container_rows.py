"""The containers that syncd made, and the requests for them that name a key, in the ledger.

A container's description tells its image; the rows only tell which containers to read, so that a
list of what syncd made costs one question for each of these and none for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from syncd.sync.ledger_rows import text_of


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request that names a key: the digest of its body, its mark, its answer once there is one.

    `known` tells that the key came before.
    """

    body: str
    mark: str
    answer: str | None
    known: bool


class ContainerRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        commit: Callable[[Callable[[Any], object]], None],
    ) -> None:
        """Take how the ledger asks, and how it runs statements in one transaction."""
        self._query = query
        self._commit = commit

    def record(self, target: str, vmid: int) -> None:
        """Write down that syncd made a container in a target."""
        values = (target, vmid, text_of(datetime.now(UTC)))
        self._commit(
            lambda db: db.execute("INSERT OR REPLACE INTO containers VALUES (?, ?, ?)", values)
        )

    def made(self, target: str) -> frozenset[int]:
        """Return the VMIDs of the containers that syncd made in a target, and did not forget."""
        rows = self._query("SELECT vmid FROM containers WHERE target = ?", target)
        return frozenset(row["vmid"] for row in rows)

    def forget(self, target: str, vmids: Iterable[int]) -> None:
        """Strike containers that are gone, or whose VMID is another's now."""
        values = [(target, vmid) for vmid in vmids]
        self._commit(
            lambda db: db.executemany(
                "DELETE FROM containers WHERE target = ? AND vmid = ?", values
            )
        )

    def request(self, key: str, body: str, mark: str) -> KeyedRequest:
        """Return the request of a key; one that is new is written down with this body and mark."""
        new = []

        def write(db: Any) -> None:
            written = db.execute(
                "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, NULL)",
                (key, body, mark, text_of(datetime.now(UTC))),
            )
            new.append(written.rowcount == 1)

        self._commit(write)
        (row,) = self._query("SELECT * FROM requests WHERE key = ?", key)
        return KeyedRequest(row["body"], row["mark"], row["answer"], known=not new[-1])

    def answered(self, key: str, answer: str) -> None:
        """Write down the answer to the request of a key."""
        self._commit(
            lambda db: db.execute("UPDATE requests SET answer = ? WHERE key = ?", (answer, key))
        )
