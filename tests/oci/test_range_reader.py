"""What `oci.range_reader` promises: several ranges as one stream, whatever becomes of each."""

from __future__ import annotations

import threading
from io import BytesIO

import pytest

from syncd.errors import BrokenStreamError, NoRangesError, RegistryUnavailableError
from syncd.oci.backoff import ATTEMPTS
from syncd.oci.manifest import Reader
from syncd.oci.range_reader import AHEAD, AT_A_TIME, Range, RangeReader

BLOB = bytes(range(251)) * 8000
RANGES = [Range(at, 1000 + at % 7) for at in range(0, 1_000_000, 40_000)]
WANTED = b"".join(BLOB[offset : offset + size] for offset, size in RANGES)


class Stream:
    """A stream of the blob that breaks, or ends, at a place of it; it brings little at a time."""

    def __init__(self, wanted: Range, breaks_at: float, *, ends: bool = False) -> None:
        self._at, _ = wanted
        self._breaks_at = breaks_at
        self._ends = ends
        self.closed = False
        self.read_bytes = 0

    def read(self, size: int, /) -> bytes:
        size = int(min(size, 700, self._breaks_at - self._at))
        if size <= 0:
            if self._ends:
                return b""
            raise BrokenStreamError("it broke")
        data = BLOB[self._at : self._at + size]
        self._at += size
        self.read_bytes += size
        return data

    def close(self) -> None:
        self.closed = True


class Source:
    """Opens streams, and notes them; the first `broken` of each range break after so many bytes."""

    def __init__(self, broken: int = 0, after: int = 300) -> None:
        self.opened: list[tuple[Range, Stream]] = []
        self._left = dict.fromkeys((offset + size for offset, size in RANGES), broken)
        self._after = after
        self._lock = threading.Lock()

    def open(self, wanted: Range) -> Reader:
        end = wanted.offset + wanted.size
        with self._lock:
            breaks = self._left.get(end, 0) > 0
            self._left[end] = self._left.get(end, 0) - 1
            stream = Stream(wanted, wanted.offset + self._after if breaks else float("inf"))
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
    """The ranges come in their order, and no byte between or behind them does."""
    source = Source()
    reader = RangeReader(RANGES, source.open)
    assert read_all(reader) == WANTED
    reader.close()
    assert sorted(wanted for wanted, _ in source.opened) == RANGES
    assert all(stream.closed for _, stream in source.opened)


def test_none() -> None:
    """No ranges are no bytes, and nobody is asked."""
    reader = RangeReader([], Source().open)
    assert read_all(reader) == b""
    reader.close()


def test_bounds() -> None:
    """Only some ranges are asked for before they are read, and only their beginnings read."""
    source = Source()
    large = [Range(nth * 200_000, 190_000) for nth in range(9)]
    reader = RangeReader(large, source.open)
    reader.read(1)
    reader.close()
    assert len(source.opened) == AT_A_TIME
    assert all(stream.read_bytes <= AHEAD for _, stream in source.opened)
    assert all(stream.closed for _, stream in source.opened)


def test_broken_streams() -> None:
    """A stream that breaks goes on where it broke."""
    source = Source(broken=2)
    reader = RangeReader(RANGES, source.open, no_pause)
    assert read_all(reader) == WANTED
    reader.close()
    assert len(source.opened) == 3 * len(RANGES)


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
    reader = RangeReader(RANGES, lambda wanted: Stream(wanted, 500, ends=True), no_pause)
    with pytest.raises(NoRangesError):
        read_all(reader)
    reader.close()


@pytest.mark.parametrize("error", [NoRangesError("none"), RegistryUnavailableError("away")])
def test_errors(error: Exception) -> None:
    """What opening a range raises is raised where the range is read, not before."""

    def fails(wanted: Range) -> Reader:
        if wanted == RANGES[2]:
            raise error
        return BytesIO(BLOB[wanted.offset : sum(wanted)])

    reader = RangeReader(RANGES, fails)
    expected = BLOB[: RANGES[0].size] + BLOB[RANGES[1].offset : sum(RANGES[1])]
    assert b"".join(reader.read(1 << 20) for _ in range(2)) == expected
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
