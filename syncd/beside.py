"""Threads beside the one that has the work: they read ahead, and digest what went by.

Nobody waits for them but at the end, or when they fall behind; whatever they raise is raised where
they are waited for.  Whoever gives the thread ends it, and must not let go of what it reads before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from syncd.errors import StorageError
from syncd.manifest import Reader
from syncd.reference import Digest

P = ParamSpec("P")
T = TypeVar("T")

_STEP = 4 << 20  # bytes of a file that are worth waking a thread for
_READ = 1 << 20


class Spare(Executor):
    """A thread for when `free` tells that a core has nothing else to do.

    At other times what is submitted is done at once, since handing it over would only cost.
    """

    def __init__(self, free: Callable[[], bool]) -> None:
        self._free = free
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spare")

    def submit(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have something done; what it raises at once is raised here."""
        if self._free():
            return self._thread.submit(act, *args, **kwargs)
        done = Future[T]()
        done.set_result(act(*args, **kwargs))
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread, once it is done with what it has begun."""
        self._thread.shutdown(wait, cancel_futures=cancel_futures)


class Ahead:
    """A reader's bytes, the next of which are read while those before are worked on."""

    def __init__(self, source: Reader, size: int, thread: Executor) -> None:
        self._source = source
        self._size = size
        self._thread = thread
        self._next: Future[bytes] | None = None

    def read(self) -> bytes:
        """Return the next bytes, at most as many as were agreed; none at the end."""
        coming, self._next = self._next, None
        data = coming.result() if coming else self._source.read(self._size)
        if data:
            self._next = self._thread.submit(self._source.read, self._size)
        return data


class Digester:
    """The digest of pieces of bytes; one of them at most waits, and is held."""

    def __init__(self, thread: Executor, algorithm: str = "sha256") -> None:
        self._thread = thread
        self._algorithm = algorithm
        self._hasher = hashlib.new(algorithm)
        self._last: Future[None] | None = None

    def update(self, content: bytes | bytearray | memoryview) -> None:
        """Go on with these bytes."""
        self._settle()
        self._last = self._thread.submit(self._hasher.update, content)

    def digest(self) -> Digest:
        """Return the digest of all pieces."""
        self._settle()
        return Digest(self._algorithm, self._hasher.hexdigest())

    def _settle(self) -> None:
        if self._last is not None:
            self._last.result()


class Follower:
    """The digest of a file that grows, from the byte `start` on, read behind the writer's back.

    The kernel still holds in memory what was just written, so the thread, its own, may fall behind
    as far as it likes: what it has yet to do waits in the file.
    """

    def __init__(self, fd: int, start: int) -> None:
        self._fd = fd
        self._at = self._told = start
        self._hasher = hashlib.sha256()
        self._buffer = memoryview(bytearray(_READ))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._steps: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def is_behind(self, end: int) -> bool:
        """Tell whether it is worth calling `follow` when the file has grown so far."""
        return end - self._told >= _STEP

    def follow(self, end: int) -> None:
        """Go on up to `end`, in the background; what is before it stands and will not change."""
        self._steps.append(self._thread.submit(self._read, end))
        self._told = end

    def digest(self, end: int) -> Digest:
        """Return the digest of all up to `end`; raise StorageError when it cannot be read."""
        self.follow(end)
        for step in self._steps:
            step.result()
        return Digest("sha256", self._hasher.hexdigest())

    def _read(self, end: int) -> None:
        while self._at < end:
            try:
                got = os.preadv(self._fd, [self._buffer[: end - self._at]], self._at)
            except OSError as exc:
                raise StorageError(f"what was written cannot be read: {exc.strerror}") from exc
            if not got:
                raise StorageError("what was written is not there any more")
            self._hasher.update(self._buffer[:got])
            self._at += got
