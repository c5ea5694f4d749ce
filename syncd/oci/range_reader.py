"""Several ranges of one blob, read as one stream, while the next ranges are already asked for.

A request takes a round trip or two before its first byte comes; with some requests under way at a
time, only the first of them is waited for.  Of each range a little is read ahead.  A stream that
breaks is opened again where it broke.  Nothing is verified here: who reads a range knows what has
to stand there.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Pulling blobs"
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from syncd.errors import BrokenStreamError, NoRangesError, RegistryUnavailableError
from syncd.oci.backoff import ATTEMPTS, backoff
from syncd.oci.manifest import Reader
from syncd.progress import Pause

AT_A_TIME = 6
"""Ranges of a blob that are asked for at a time."""
AHEAD = 128 << 10
"""Bytes of each that are read before they are wanted, at most."""


class Range(NamedTuple):
    """Bytes of a blob."""

    offset: int
    size: int


OpenRange = Callable[[Range], Reader]
"""Opens a stream of these very bytes; it may go on behind them."""


class RangeReader:
    """The bytes of `ranges`, one behind the other.  One thread reads and closes it.

    `pause` waits before a stream is opened again, and may raise to give up.
    """

    def __init__(
        self, ranges: Sequence[Range], open_range: OpenRange, pause: Pause = time.sleep
    ) -> None:
        self._coming = iter(ranges)
        self._open_range = open_range
        self._pause = pause
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="range")
        self._under_way: deque[tuple[_Stretch, Future[None]]] = deque()
        for _ in range(AT_A_TIME):
            self._ask()

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`, none at the end.

        Raise RegistryUnavailableError for a stream that breaks ATTEMPTS times and gets no further,
        and whatever opening a stream raises.
        """
        while self._under_way:
            stretch, ahead = self._under_way[0]
            ahead.result()
            if data := stretch.read(size):
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
        """Ask for the next range, if there is one."""
        following = next(self._coming, None)
        if following is not None:
            stretch = _Stretch(following, self._open_range, self._pause)
            self._under_way.append((stretch, self._threads.submit(stretch.read_ahead)))


class _Stretch:
    """One range: its stream, and what of it was read ahead."""

    def __init__(self, wanted: Range, open_range: OpenRange, pause: Pause) -> None:
        self._at = wanted.offset
        self._end = wanted.offset + wanted.size
        self._open_range = open_range
        self._pause = pause
        self._stream: Reader | None = None
        self._ahead = bytearray()

    def read_ahead(self) -> None:
        """Ask for the range, and read its first bytes."""
        while len(self._ahead) < AHEAD and (data := self._next(AHEAD - len(self._ahead))):
            self._ahead += data

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end."""
        if self._ahead:
            data = bytes(self._ahead[:size])
            del self._ahead[:size]
            return data
        return self._next(size)

    def close(self) -> None:
        """Let go of the stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _next(self, size: int) -> bytes:
        failures = 0
        while self._at < self._end:
            try:
                if self._stream is None:
                    self._stream = self._open_range(Range(self._at, self._end - self._at))
                data = self._stream.read(min(size, self._end - self._at))
            except BrokenStreamError as exc:
                self.close()
                failures += 1
                if failures >= ATTEMPTS:
                    raise RegistryUnavailableError(
                        f"a range of a blob broke off {failures} times at byte {self._at}: "
                        f"{exc.what}",
                        "check the network; the next trigger tries again",
                    ) from exc
                self._pause(backoff(failures))
                continue
            if not data:
                raise NoRangesError(f"a blob ends at byte {self._at}, before the range does")
            self._at += len(data)
            return data
        return b""
