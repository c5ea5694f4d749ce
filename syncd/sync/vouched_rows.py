"""What vouched for each image, in the ledger: beside the templates that were made of it.

A row says that an image was held against a policy, and passed.  It counts for that policy alone, so
that an image is looked at again when the policy, or one of its keys, has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from syncd.oci import Digest, Reference
from syncd.sync.ledger_rows import Row, moment_of, text_of
from syncd.trust import Voucher


class VouchedImage(NamedTuple):
    """An image as it was vouched for: its repository, what the tag meant, its manifest."""

    repository: str
    digest: str
    manifest_digest: str

    @classmethod
    def of(cls, reference: Reference, digest: Digest, manifest_digest: Digest) -> VouchedImage:
        """Return an image by what a reference meant."""
        return cls(reference.name, str(digest), str(manifest_digest))


class VouchedRows:
    """The rows.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(
        self,
        query: Callable[..., Sequence[Any]],
        parse: Callable[[Iterable[Any], Callable[[Row], Any]], list[Any]],
        write: Callable[..., None],
    ) -> None:
        """Take how the ledger asks, reads rows, and writes."""
        self._query = query
        self._parse = parse
        self._write = write

    def record(self, image: VouchedImage, policy: str, vouchers: Sequence[Voucher]) -> None:
        """Write down what vouches for an image under the policy of this fingerprint."""
        self._write(
            "INSERT OR REPLACE INTO vouched VALUES (?, ?, ?, ?, ?, ?)",
            *image,
            policy,
            json.dumps([_fields(voucher) for voucher in vouchers]),
            text_of(datetime.now(UTC)),
        )

    def passed(self, image: VouchedImage, policy: str) -> bool:
        """Tell whether an image passed under the policy of this fingerprint."""
        return bool(
            self._query(
                "SELECT 1 FROM vouched WHERE repository = ? AND digest = ? "
                "AND manifest_digest = ? AND policy = ?",
                *image,
                policy,
            )
        )

    def all(self) -> Mapping[VouchedImage, tuple[Voucher, ...]]:
        """Return what vouched for each image when it was last held against a policy."""
        rows = self._query("SELECT * FROM vouched ORDER BY at")
        return dict(self._parse(rows, _entry))

    def by_digest(self) -> Mapping[tuple[str, str], tuple[Voucher, ...]]:
        """Return what vouched for what a tag meant, by repository and digest."""
        return {(image.repository, image.digest): found for image, found in self.all().items()}


def _entry(row: Row) -> tuple[VouchedImage, tuple[Voucher, ...]]:
    image = VouchedImage(row["repository"], row["digest"], row["manifest_digest"])
    return image, tuple(_voucher(fields) for fields in json.loads(row["vouchers"]))


def _fields(voucher: Voucher) -> dict[str, Any]:
    return {**asdict(voucher), "time": text_of(voucher.time) if voucher.time else None}


def _voucher(fields: dict[str, Any]) -> Voucher:
    return Voucher(**{**fields, "time": moment_of(fields.get("time"))})
