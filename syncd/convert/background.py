"""Threads that help the thread which has the work: they read ahead, and digest what went by.

The working thread waits for a helper at the end only, or when the helper falls behind.  An error of
a helper is raised where its result is asked for.  The owner of a helper ends it, and keeps open
until then what the helper reads.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, Protocol, Self, TypeVar

from syncd.oci import Digest, Reader
from syncd.tar import BLOCK

A = TypeVar("A")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_SOON = 0.05  # seconds within which bytes come that count as not waited for


class Task(Protocol[T_co]):
    """A call that a helper was given."""

    def result(self, timeout: float | None = None) -> T_co:
        """Return what the call returned, or raise what it raised, once it is over.

        Raise TimeoutError when it is not over after so many seconds.
        """


class Helper:
    """A thread that makes calls for another one, one after the other.

    `free` tells whether a core has nothing else to do.  While none is free, `run` makes the call
    itself before it returns, since handing it over would only cost time.  A call's error is raised
    by `result` in either case.  Leaving the context waits for the calls that were handed over.
    """

    def __init__(self, name: str, free: Callable[[], bool] = lambda: True) -> None:
        self._free = free
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def run(self, act: Callable[[A], T], argument: A) -> Task[T]:
        """Call `act` with its argument: on the thread if a core is free, else at once."""
        if self._free():
            return self._thread.submit(act, argument)
        return _Over(act, argument)


class _Over(Generic[A, T]):
    """A call that was made at once."""

    __slots__ = ("_error", "_value")

    def __init__(self, act: Callable[[A], T], argument: A) -> None:
        self._error: Exception | None = None
        try:
            self._value = act(argument)
        except Exception as exc:  # noqa: BLE001 - raised again by `result`
            self._error = exc

    def result(self, timeout: float | None = None) -> T:  # noqa: ARG002 - it is over
        if self._error is not None:
            raise self._error
        return self._value


class ReadAhead:
    """A blob's bytes in pieces, the next of which is read while the last is worked on.

    Only the thread that makes it reads it.  `advance` is told the size of each piece.  A piece that
    does not come soon is waited for in the context of `waiting`.  `begin` is the first block of the
    blob.
    """

    def __init__(
        self,
        source: Reader,
        size: int,
        helper: Helper,
        advance: Callable[[int], None],
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.begin = b""
        self._source = source
        self._size = size
        self._helper = helper
        self._advance = advance
        self._waiting = waiting
        self._worker = threading.get_ident()
        self._next: Task[bytes] | None = None

    def read(self) -> bytes:
        """Return the next piece, at most `size` bytes; none at the end."""
        coming, self._next = self._next, None
        data = self._awaited(coming) if coming else self._fetch(self._size)
        if data:
            self._next = self._helper.run(self._fetch, self._size)
        self.begin = self.begin or data[:BLOCK]
        self._advance(len(data))
        return data

    def _awaited(self, coming: Task[bytes]) -> bytes:
        """Return what the helper reads; wait for it in the context of waiting unless it is soon."""
        try:
            return coming.result(_SOON)
        except TimeoutError:
            with self._waiting():
                return coming.result()

    def _fetch(self, size: int) -> bytes:
        """Read from the source, on whichever thread: the one that works waits meanwhile."""
        if threading.get_ident() != self._worker:
            return self._source.read(size)
        with self._waiting():
            return self._source.read(size)

    def drain(self) -> None:
        """Read to the end, so that the blob as a whole is verified."""
        while self.read():
            pass


class Digester:
    """Computes the digest of pieces of bytes on a helper; at most one piece waits, and is held."""

    def __init__(self, helper: Helper, algorithm: str = "sha256") -> None:
        self._helper = helper
        self._algorithm = algorithm
        self._hasher = hashlib.new(algorithm)
        self._last: Task[None] | None = None

    def update(self, content: bytes | bytearray | memoryview) -> None:
        """Take the next piece; wait for the piece before it."""
        self._settle()
        self._last = self._helper.run(self._hasher.update, content)

    def digest(self) -> Digest:
        """Return the digest of all pieces."""
        self._settle()
        return Digest(self._algorithm, self._hasher.hexdigest())

    def _settle(self) -> None:
        if self._last is not None:
            self._last.result()
