"""What syncd found when it last compared a published file with what the file has to be.

Whoever can write into a storage can put a file there under a template's name.  So a file that this
ledger did not make counts only with a proof, and a file that it made stops counting with a proof
of the contrary.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from syncd.oci import Digest


class ProofState(StrEnum):
    """What a file was found to be.

    `ok` is a file of the right size, and of the right digest where this host can read it.  `cut`
    has another size, and `changed` other bytes of the same size.  `gone` is not listed any more.
    `unreadable` lies where this host should be able to read, and gives an error.
    """

    OK = "ok"
    CUT = "cut"
    CHANGED = "changed"
    GONE = "gone"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Proof:
    """One file of a target, what it has to be (`size` in bytes), and what it was found to be."""

    target: str
    name: str
    size: int
    file_digest: Digest
    state: ProofState
    at: datetime
