"""What `convert.parts.fetched` promises: parts in their order, and little memory for the rest."""

from __future__ import annotations

import hashlib
import tracemalloc
from contextlib import nullcontext

import pytest
import zstandard

from syncd.convert.parts.fetched import FetchedParts
from syncd.convert.parts.table import Part
from syncd.errors import ImageError, VerificationError
from syncd.oci.range_reader import Range

CONTENTS = [b"first" * 1000, b"second" * 1000, b"third"]
STORED = [zstandard.compress(one) for one in CONTENTS]
GAP = 32 << 20


class Blob:
    """The stored parts with a gap behind each, made while they are read."""

    def __init__(self) -> None:
        self._coming = [piece for one in STORED for piece in (one, GAP)]

    def read(self, size: int, /) -> bytes:
        while self._coming:
            piece = self._coming.pop(0)
            length = piece if isinstance(piece, int) else len(piece)
            taken = min(size, length)
            if taken < length:
                rest = length - taken if isinstance(piece, int) else piece[taken:]
                self._coming.insert(0, rest)
            return bytes(taken) if isinstance(piece, int) else piece[:taken]
        return b""

    def close(self) -> None:
        """Close nothing."""


def parts() -> list[Part]:
    found, at = [], 0
    for content, stored in zip(CONTENTS, STORED, strict=True):
        found.append(Part(hashlib.sha256(content).digest(), len(content), at, at + len(stored)))
        at += len(stored) + GAP
    return found


def fetched(told: list[int]) -> FetchedParts:
    whole = Range(0, sum(map(len, STORED)) + len(STORED) * GAP)
    return FetchedParts(Blob(), [whole], nullcontext, told.append)


def test_gaps() -> None:
    """What lies between two parts is passed over, and not held."""
    told: list[int] = []
    tracemalloc.start()
    source = fetched(told)
    assert [source.plain(part) for part in parts()] == CONTENTS
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
    assert sum(told) >= 2 * GAP


def test_other_digest() -> None:
    """A part that has another digest is refused."""
    first, *_ = parts()
    with pytest.raises(VerificationError):
        fetched([]).plain(first._replace(digest=bytes(32)))


def test_nothing_there() -> None:
    """A part where nothing was fetched is the table's fault."""
    *_, last = parts()
    far = last._replace(offset=1 << 40, end=(1 << 40) + 9)
    with pytest.raises(ImageError, match="nothing was fetched"):
        fetched([]).plain(far)
