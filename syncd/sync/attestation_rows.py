"""The attestations that images brought, in the ledger: beside the templates made of them.

They are compressed, since an SBOM is long and says much the same on each line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from syncd.sync.ledger_rows import Row
from syncd.sync.vouched_rows import VouchedImage
from syncd.trust import Attestation

_LARGEST = 64 << 20  # bytes that a row may say it has; what is written is far below


@dataclass(frozen=True, slots=True)
class KeptAttestation:
    """An attestation of the ledger without its content, of which `size` is the bytes."""

    predicate: str
    place: str
    size: int


class AttestationRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Any]], list[Any]],
        commit: Callable[[Callable[[Any], object]], None],
    ) -> None:
        """Take how the ledger asks, reads rows, and runs statements all or none."""
        self._query = query
        self._parse = parse
        self._commit = commit

    def keep(self, image: VouchedImage, attestations: Sequence[Attestation]) -> None:
        """Write down what an image brought, in place of what was known."""
        rows = [
            (*image, position, one.predicate, one.place, len(one.content), _packed(one.content))
            for position, one in enumerate(attestations)
        ]

        def write(db: Any) -> None:
            db.execute(
                "DELETE FROM attestations WHERE repository = ? AND digest = ? "
                "AND manifest_digest = ?",
                image,
            )
            db.executemany("INSERT INTO attestations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

        self._commit(write)

    def of(self, image: VouchedImage) -> list[Attestation]:
        """Return what an image brought, whole."""
        rows = self._query(
            "SELECT * FROM attestations WHERE repository = ? AND digest = ? "
            "AND manifest_digest = ? ORDER BY position",
            *image,
        )
        return self._parse(rows, _attestation)

    def all(self) -> Mapping[VouchedImage, list[KeptAttestation]]:
        """Return what each image brought, without the contents."""
        found: dict[VouchedImage, list[KeptAttestation]] = {}
        rows = self._query(
            "SELECT repository, digest, manifest_digest, predicate, place, size FROM attestations "
            "ORDER BY position"
        )
        for row in rows:
            image = VouchedImage(row["repository"], row["digest"], row["manifest_digest"])
            kept = KeptAttestation(row["predicate"], row["place"], row["size"])
            found.setdefault(image, []).append(kept)
        return found


def _packed(content: bytes) -> bytes:
    return zstandard.compress(content)


def _attestation(row: Row) -> Attestation:
    try:
        content = zstandard.decompress(row["content"], max_output_size=_LARGEST)
    except zstandard.ZstdError as exc:
        raise ValueError(str(exc)) from exc
    return Attestation(row["predicate"], row["place"], content)
