"""What `oci.range_reader` promises: several ranges as one stream, whatever becomes of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from io import BytesIO

import pytest

from syncd.errors import (
    BrokenStreamError,
    NoRangesError,
    OneRangeError,
    RegistryUnavailableError,
)
from syncd.oci.backoff import ATTEMPTS
from syncd.oci.manifest import Reader
from syncd.oci.range_reader import (
    AHEAD,
    AT_A_TIME,
    RANGE_COST,
    SEVERAL,
    Range,
    RangeReader,
)

BLOB = bytes(range(251)) * 8000
RANGES = [Range(at, 1000 + at % 7) for at in range(0, 1_000_000, 40_000)]
LARGE = [Range(at, 190_000) for at in range(0, 1_900_000, 380_000)]
MANY = [Range(at, 1000 + at % 7) for at in range(0, 1_900_000, 4_000)]


def content(ranges: Sequence[Range]) -> bytes:
    return b"".join(BLOB[offset : offset + size] for offset, size in ranges)


WANTED = content(RANGES)


def joined(ranges: Sequence[Range]) -> int:
    """Return how many requests of one range these are, which bridge some small gaps."""
    count = together = 0
    end = -RANGE_COST - 1
    for offset, size in ranges:
        if offset - end > RANGE_COST or together == SEVERAL:
            count, together = count + 1, 0
        together, end = together + 1, offset + size
    return count


class Stream:
    """A stream of ranges of the blob that ends with an error after so many bytes, or without one.

    It brings little at a time.  What one range wants goes on behind it, to the end of the blob.
    """

    def __init__(self, wanted: Sequence[Range], after: float, error: Exception | None) -> None:
        self._content = BytesIO(content(wanted) if len(wanted) > 1 else BLOB[wanted[0].offset :])
        self._after = after
        self._error = error
        self.closed = False
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        size = int(min(size, 700, self._after - self.read_bytes))
        if size <= 0 and self._error is not None:
            raise self._error
        data = self._content.read(max(size, 0))
        self.read_bytes += len(data)
        return data

    def close(self) -> None:
        self.closed = True


class Source:
    """Opens streams, and notes them; the first `broken` break after so many bytes.

    More ranges than `several` are refused after so many bytes, or at once.
    """

    def __init__(
        self, broken: int = 0, after: int = 300, *, several: int = 9999, at_once: bool = True
    ) -> None:
        self.opened: list[tuple[Sequence[Range], Stream]] = []
        self._left = broken
        self._after = after
        self._several = several
        self._at_once = at_once
        self._lock = threading.Lock()

    def open(self, wanted: Sequence[Range]) -> Reader:
        error: Exception = BrokenStreamError("it broke")
        refused = len(wanted) > self._several
        if refused:
            error = OneRangeError("one at a time")
            if self._at_once:
                raise error
        with self._lock:
            ends = refused or self._left > 0
            self._left -= 1
            stream = Stream(wanted, self._after if ends else float("inf"), error)
            self.opened.append((wanted, stream))
        return stream


def read_all(reader: RangeReader, size: int = 999) -> bytes:
    content = b""
    while data := reader.read(size):
        assert len(data) <= size
        content += data
    return content


def no_pause(_: float) -> None:
    """Wait for nothing."""


def test_all_ranges() -> None:
    """The ranges come in their order by one request, and no byte between or behind them does."""
    source = Source()
    reader = RangeReader(RANGES, source.open)
    assert read_all(reader) == WANTED
    reader.close()
    ((wanted, stream),) = source.opened
    assert list(wanted) == RANGES
    assert stream.closed


def test_many_ranges() -> None:
    """A request asks for a bounded number of ranges."""
    source = Source()
    reader = RangeReader(MANY, source.open)
    assert read_all(reader) == content(MANY)
    reader.close()
    assert max(len(wanted) for wanted, _ in source.opened) == SEVERAL
    assert len(source.opened) == -(-len(MANY) // SEVERAL)


@pytest.mark.parametrize("after", [None, 0, 300, 1000, 5000])
@pytest.mark.parametrize("ranges", [RANGES, MANY], ids=["some", "many"])
def test_one_range(ranges: list[Range], after: int | None) -> None:
    """Who does not answer several ranges, whenever that shows, is asked for one after the other."""
    source = Source(after=after or 0, several=1, at_once=after is None)
    reader = RangeReader(ranges, source.open, no_pause)
    assert read_all(reader) == content(ranges)
    reader.close()
    refused = [wanted for wanted, _ in source.opened if len(wanted) > 1]
    assert len(refused) <= AT_A_TIME
    assert len(source.opened) - len(refused) == joined(ranges)
    assert all(stream.closed for _, stream in source.opened)


@pytest.mark.parametrize("after", [AHEAD + 1, 150_000, 400_000])
def test_one_range_in_the_end(after: int) -> None:
    """Who stops to answer several ranges once bytes were read is asked for no byte again."""
    reader = RangeReader(LARGE, Source(after=after, several=1, at_once=False).open, no_pause)
    assert read_all(reader) == content(LARGE)
    reader.close()


def test_ranges_in_another_order() -> None:
    """Ranges that do not ascend are no neighbours."""
    source = Source(several=1)
    reader = RangeReader(MANY[::-1], source.open)
    assert read_all(reader) == content(MANY[::-1])
    reader.close()
    assert len(source.opened) == len(MANY)


def test_gaps_between_broken_streams() -> None:
    """One range that bridges gaps goes on where it broke, in a gap or not."""
    source = Source(several=1)
    reader = RangeReader(MANY, source.open, no_pause)
    assert read_all(reader)[:10] == content(MANY)[:10]
    for after in (3500, 4000, 4100):
        source = Source(broken=60, after=after, several=1)
        reader = RangeReader(MANY, source.open, no_pause)
        assert read_all(reader) == content(MANY)
        reader.close()


def test_not_even_one() -> None:
    """Who refuses one range as if it were several is not asked for ever."""
    reader = RangeReader(RANGES, Source(several=0).open, no_pause)
    with pytest.raises(OneRangeError):
        read_all(reader)
    reader.close()


def test_none() -> None:
    """No ranges are no bytes, and nobody is asked."""
    reader = RangeReader([], Source().open)
    assert read_all(reader) == b""
    reader.close()


def test_bounds() -> None:
    """Only some ranges are asked for before they are read, and only their beginnings read."""
    source = Source()
    large = [Range(nth * 4_000, 3_900) for nth in range(9 * SEVERAL)]
    reader = RangeReader(large, source.open)
    reader.read(1)
    for _ in range(1000):
        time.sleep(0.001 * (len(source.opened) < AT_A_TIME))
    reader.close()
    assert len(source.opened) == AT_A_TIME
    assert all(stream.read_bytes <= AHEAD for _, stream in source.opened)
    assert all(stream.closed for _, stream in source.opened)


def test_broken_streams() -> None:
    """A stream that breaks goes on where it broke, whichever range that is in."""
    source = Source(broken=20, after=1300)
    reader = RangeReader(RANGES, source.open, no_pause)
    assert read_all(reader) == WANTED
    reader.close()
    assert len(source.opened) == 1 + len(WANTED) // 1300


def test_too_often() -> None:
    """A stream that gets nowhere, however often it is opened, is given up."""
    source = Source(broken=ATTEMPTS, after=0)
    reader = RangeReader(RANGES[:1], source.open, no_pause)
    with pytest.raises(RegistryUnavailableError, match=f"broke off {ATTEMPTS} times at byte 0"):
        read_all(reader)
    reader.close()
    assert len(source.opened) == ATTEMPTS


def test_shorter_blob() -> None:
    """A source that ends before its range does serves no ranges."""
    reader = RangeReader(RANGES, lambda wanted: Stream(wanted, 500, None), no_pause)
    with pytest.raises(NoRangesError):
        read_all(reader)
    reader.close()


@pytest.mark.parametrize("error", [NoRangesError("none"), RegistryUnavailableError("away")])
def test_errors(error: Exception) -> None:
    """What opening a range raises is raised where the range is read, not before."""

    def fails(wanted: Sequence[Range]) -> Reader:
        if wanted[0] == MANY[2 * SEVERAL]:
            raise error
        return BytesIO(content(wanted))

    reader = RangeReader(MANY, fails)
    expected = content(MANY[: 2 * SEVERAL])
    found = b""
    while len(found) < len(expected):
        found += reader.read(1 << 20)
    assert found == expected
    with pytest.raises(type(error)):
        reader.read(100)
    reader.close()


def test_stop() -> None:
    """A wait that is to end ends the reading."""

    class EndError(Exception):
        pass

    def end(_: float) -> None:
        raise EndError

    reader = RangeReader(RANGES, Source(broken=1).open, end)
    with pytest.raises(EndError):
        read_all(reader)
    reader.close()
