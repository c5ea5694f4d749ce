"""What `convert.parts.ranges` promises: all that is missing in few requests, or none at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncd.convert.channel import RANGES_MAX
from syncd.convert.parts.ranges import GAP, may_pay, pays, ranges_of
from syncd.convert.parts.table import Part
from syncd.oci import RANGE_COST

STEPS = st.lists(
    st.tuples(st.integers(0, 3 * GAP), st.integers(0, 70_000)), max_size=RANGES_MAX + 200
)


def parts(steps: list[tuple[int, int]]) -> list[Part]:
    """Return parts, each so many bytes behind the one before, and so many bytes long."""
    found, at = [], 0
    for gap, size in steps:
        found.append(Part(b"1" * 32, 1, at + gap, at + gap + size))
        at += gap + size
    return found


@given(STEPS)
def test_ranges(steps: list[tuple[int, int]]) -> None:
    """Each part lies in one range; ranges ascend, and what lies between them is worth one more."""
    missing = parts(steps)
    ranges = ranges_of(missing)
    assert len(ranges) <= RANGES_MAX
    end = -GAP - 1
    for offset, size in ranges:
        assert size > 0
        assert offset - end > GAP
        end = offset + size
    for part in missing:
        assert part.offset == part.end or any(
            offset <= part.offset and part.end <= offset + size for offset, size in ranges
        )


def test_many_far_apart() -> None:
    """However many parts there are and however far apart, few ranges are asked for."""
    missing = parts([(GAP * 2, 10)] * (3 * RANGES_MAX))
    ranges = ranges_of(missing)
    assert 0 < len(ranges) <= RANGES_MAX
    assert sum(ranges[-1]) == missing[-1].end


def test_neighbours() -> None:
    """Parts that lie side by side are one range."""
    assert ranges_of(parts([(5, 10), (0, 10), (1, 10)])) == [(5, 31)]


def test_what_pays() -> None:
    """Parts are fetched where they, and the requests for them, cost clearly less than the blob."""
    whole = 10 << 20
    assert pays([], whole)
    assert pays(ranges_of(parts([(0, whole // 2)])), whole)
    assert not pays(ranges_of(parts([(0, whole * 9 // 10)])), whole)
    assert not pays(ranges_of(parts([(2 * RANGE_COST, 10)] * 300)), whole)
    assert may_pay(whole // 100, whole)
    assert not may_pay(whole // 2, whole)
    assert not may_pay(100, 2 * RANGE_COST)
