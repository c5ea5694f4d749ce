"""Several ranges of one blob, read as one stream, while the next ranges are already asked for.

A request takes a round trip or two before its first byte comes, and a millisecond of this host's
and the registry's time.  So many ranges are asked for by one request, and some requests are under
way at a time.  A server that does not answer several ranges at once is asked for one after
the other, and what lies between close neighbours is read with them.  Of each answer a little is
read ahead.  A stream that breaks is opened again where it broke.
Nothing is verified here: who reads a range knows what has to stand there.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Pulling blobs"; RFC
9110, section 14.2
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from syncd.errors import (
    BrokenStreamError,
    NoRangesError,
    OneRangeError,
    RegistryUnavailableError,
)
from syncd.oci.backoff import ATTEMPTS, backoff
from syncd.oci.manifest import Reader
from syncd.progress import Pause

AT_A_TIME = 6
"""Requests for ranges of a blob that are under way at a time."""
SEVERAL = 64
"""Ranges that one request asks for at most; a header line of some 1,300 characters names them."""
RANGE_COST = 32 << 10
"""Bytes that a request counts as, and that a gap has at most which saves one: through a line of 100
Mbit/s and 20 ms, with six requests under way, as many come in the time that a request takes."""
AHEAD = 128 << 10
"""Bytes of each answer that are read before they are wanted, at most."""


class Range(NamedTuple):
    """Bytes of a blob."""

    offset: int
    size: int


OpenSome = Callable[[Sequence[Range]], Reader]
"""Opens a stream of these very bytes, range after range; it may go on behind them."""


class RangeReader:
    """The bytes of `ranges`, one behind the other.  One thread reads and closes it.

    `pause` waits before a stream is opened again, and may raise to give up.
    """

    def __init__(
        self, ranges: Sequence[Range], open_some: OpenSome, pause: Pause = time.sleep
    ) -> None:
        self._coming = deque(ranges)
        self._one_by_one = False
        self._open_some = open_some
        self._pause = pause
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="range")
        self._under_way: deque[tuple[_Stretch, Future[None]]] = deque()
        self._ask()

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`, none at the end.

        Raise RegistryUnavailableError for a stream that breaks ATTEMPTS times and gets no further,
        and whatever opening a stream raises, but OneRangeError for several ranges.
        """
        while self._under_way:
            stretch, ahead = self._under_way[0]
            try:
                ahead.result()
                data = stretch.read(size)
            except OneRangeError:
                if self._one_by_one:
                    raise
                self._ask_one_by_one()
                continue
            if data:
                return data
            stretch.close()
            self._under_way.popleft()
            self._ask()
        return b""

    def close(self) -> None:
        """Let go of all streams, once those that are being opened are open."""
        self._threads.shutdown(cancel_futures=True)
        for stretch, _ in self._under_way:
            stretch.close()

    def _ask(self) -> None:
        """Ask for the next ranges, until as many requests are under way as may be."""
        while self._coming and len(self._under_way) < AT_A_TIME:
            stretch = _Stretch(self._take(), self._open_some, self._pause, joined=self._one_by_one)
            self._under_way.append((stretch, self._threads.submit(stretch.read_ahead)))

    def _take(self) -> Sequence[Range]:
        """Take the ranges of the next request: any, or one and those that lie close behind it."""
        wanted = [self._coming.popleft()]
        while self._coming and len(wanted) < SEVERAL:
            gap = self._coming[0].offset - sum(wanted[-1])
            if self._one_by_one and not 0 <= gap <= RANGE_COST:
                break
            wanted.append(self._coming.popleft())
        return wanted

    def _ask_one_by_one(self) -> None:
        """Ask anew for what was not read, by one range a request."""
        self._one_by_one = True
        left: list[Range] = []
        for stretch, ahead in self._under_way:
            ahead.cancel()
            wait([ahead])
            stretch.close()
            left += stretch.left()
        self._under_way.clear()
        self._coming.extendleft(reversed(left))
        self._ask()


class _Stretch:
    """The ranges of one request: their stream, and what of it was read ahead.

    If they are `joined`, they are one range with gaps, and what lies in these is read and dropped.
    """

    def __init__(
        self, wanted: Sequence[Range], open_some: OpenSome, pause: Pause, *, joined: bool
    ) -> None:
        self._coming = deque(wanted)  # what did not come yet
        self._is_joined = joined
        self._at = 0  # in the blob, of what is joined
        self._open_some = open_some
        self._pause = pause
        self._stream: Reader | None = None
        self._ahead = bytearray()
        self._wanted = wanted
        self._given = 0

    def read_ahead(self) -> None:
        """Ask for the ranges, and read the first bytes."""
        while len(self._ahead) < AHEAD and (data := self._next(AHEAD - len(self._ahead))):
            self._ahead += data

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end."""
        if self._ahead:
            data = bytes(self._ahead[:size])
            del self._ahead[:size]
        else:
            data = self._next(size)
        self._given += len(data)
        return data

    def left(self) -> Sequence[Range]:
        """Return the ranges that `read` did not return."""
        return _behind(self._wanted, self._given)

    def close(self) -> None:
        """Let go of the stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _next(self, size: int) -> bytes:
        failures = 0
        while self._coming:
            at, left = self._coming[0]
            try:
                if self._stream is None:
                    self._stream = self._open_some(self._asked())
                    self._at = at
                gap = at - self._at if self._is_joined else 0
                data = self._stream.read(gap or min(size, left))
            except BrokenStreamError as exc:
                self.close()
                failures += 1
                if failures >= ATTEMPTS:
                    raise RegistryUnavailableError(
                        f"a range of a blob broke off {failures} times at byte {at}: {exc.what}",
                        "check the network; the next trigger tries again",
                    ) from exc
                self._pause(backoff(failures))
                continue
            if not data:
                raise NoRangesError(f"a blob ends at byte {at}, before the range does")
            self._at += len(data)
            if not gap:
                self._coming = deque(_behind(self._coming, len(data)))
                return data
        return b""

    def _asked(self) -> Sequence[Range]:
        """Return what to ask for: the ranges, or the one that they are joined to."""
        if not self._is_joined:
            return tuple(self._coming)
        begin = self._coming[0].offset
        return (Range(begin, sum(self._coming[-1]) - begin),)


def _behind(ranges: Iterable[Range], size: int) -> Sequence[Range]:
    """Return what lies behind the first `size` bytes of the ranges."""
    found = []
    for offset, length in ranges:
        passed = min(size, length)
        size -= passed
        if passed < length:
            found.append(Range(offset + passed, length - passed))
    return found
