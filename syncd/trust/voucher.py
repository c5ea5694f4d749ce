"""What vouched for an image: it is kept with the template that was made of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Voucher:
    """A verified signature: of which manifest, by whom, and what the log says of it.

    `identity` and `issuer` are empty where a key signed; `key` is the SHA-256 of that key, else
    empty.  `place` is where the signature lies, `what` what it is, and `digest` what it is of: the
    image's index, or its manifest.
    """

    digest: str
    what: str
    form: str
    place: str
    identity: str = ""
    issuer: str = ""
    key: str = ""
    log_index: int | None = None
    time: datetime | None = None

    def __str__(self) -> str:
        by = f"the key {self.key}" if self.key else f"{self.identity} (issuer {self.issuer})"
        logged = f", entry {self.log_index} of the log" if self.log_index is not None else ""
        at = f", {self.time:%Y-%m-%d %H:%M:%S} UTC" if self.time else ""
        return f"{self.what} by {by}{logged}{at}"
