"""SHA-256 on threads of its own, for those who have better things to do than to wait for it.

`Digester` is given the bytes.  `Follower` reads a file that grows, behind the writer's back: the
kernel still holds in memory what was just written, so it may fall behind as far as it likes, and
what it has yet to do waits in the file.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from syncd.errors import StorageError
from syncd.reference import Digest

_STEP = 4 << 20  # bytes of a file that are worth waking a thread for
_READ = 1 << 20


class Digester:
    """The digest of pieces of bytes; one of them at most waits, and is held."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def update(self, content: bytes) -> None:
        """Go on with these bytes."""
        self._settle()
        self._last = self._thread.submit(self._hasher.update, content)

    def digest(self) -> Digest:
        """Return the digest of all pieces."""
        self._settle()
        return Digest("sha256", self._hasher.hexdigest())

    def _settle(self) -> None:
        if self._last is not None:
            self._last.result()


class Follower:
    """The digest of a file, from the byte `start` on."""

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
