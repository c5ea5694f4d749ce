"""Which bytes of a blob are fetched for the parts that are not here, and whether that pays.

Pure.  Neighbours are fetched together, and a small gap between two parts is fetched with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncd.convert.channel import RANGES_MAX
from syncd.convert.parts.table import Part
from syncd.oci import RANGE_COST, Range

GAP = 8 << 10
"""Bytes between two parts that are fetched with them.  One range more costs two hundred bytes where
many are asked for by one request; where each takes one, wider gaps are bridged there."""
_SMALLEST = 4 * RANGE_COST  # bytes of a blob below which its table costs as much as the rest
_DESCRIBED = 0.5  # of the blob's bytes that table and tar-split data may be
_WORTH = 0.8  # of the blob's bytes that parts may cost to be fetched instead of it


def ranges_of(missing: Sequence[Part]) -> list[Range]:
    """Return the ranges that cover these parts, whose places ascend, and bridge small gaps.

    Wider gaps are bridged where there would be more than RANGES_MAX.
    """
    gap = GAP
    while True:
        ranges: list[Range] = []
        begin = end = -gap - 1
        for part in missing:
            if part.offset - end > gap:
                if end > begin:
                    ranges.append(Range(begin, end - begin))
                begin = part.offset
            end = part.end
        if end > begin:
            ranges.append(Range(begin, end - begin))
        if len(ranges) <= RANGES_MAX:
            return ranges
        gap *= 2


def may_pay(described: int, whole: int) -> bool:
    """Tell whether a blob of `whole` bytes is worth a look at `described` bytes of it."""
    return whole >= _SMALLEST and described < _DESCRIBED * whole


def pays(ranges: Sequence[Range], whole: int) -> bool:
    """Tell whether these ranges cost clearly less than a blob of `whole` bytes."""
    return sum(size for _, size in ranges) + RANGE_COST * len(ranges) < _WORTH * whole
