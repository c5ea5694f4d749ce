"""What a conversion wrote."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.convert.frame_store import FrameTable
from syncd.oci import Digest


@dataclass(frozen=True, slots=True)
class WrittenTemplate:
    """What was written: compressed and plain size in bytes, and the digest of the file.

    `diff_id` is the digest of the plain tar if it was asked for; `table` lists the frames if the
    conversion is to be remembered.  `warnings` are sentences for whoever asked for the
    template; `is_suitable` tells whether an unprivileged container can be made from it.
    """

    size: int
    plain_size: int
    digest: Digest
    diff_id: Digest | None = None
    table: FrameTable | None = None
    warnings: tuple[str, ...] = ()
    is_suitable: bool = True
