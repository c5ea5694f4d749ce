"""Bytes of a blob that are what their descriptor says, or an error.

Whatever a blob comes from, it is read here: bytes that an earlier reading kept come first, a stream
that breaks is opened again where it broke, and what is read is kept if there is a place for it.

Source: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from syncd.errors import (
    BrokenStreamError,
    RegistryUnavailableError,
    SlowStreamError,
    StorageError,
    VerificationError,
)
from syncd.oci.backoff import ATTEMPTS, backoff
from syncd.oci.manifest import Descriptor, Reader
from syncd.progress import Pause

_SLOW_ATTEMPTS = 2
_WORTH_IT = 1 << 20  # bytes between two slow stretches that make the second one the first

OpenAt = Callable[[int], Reader]
"""Opens a stream of a blob from an offset in bytes on."""


class Keeper(Protocol):
    """Keeps the bytes of one blob on disk while they are read."""

    @property
    def size(self) -> int:
        """How many bytes were kept before this reading."""

    def read(self, size: int, offset: int) -> bytes:
        """Return at most `size` of these bytes, from `offset` on; raise OSError."""

    def append(self, content: bytes) -> None:
        """Keep the next bytes; raise StorageError."""

    def complete(self) -> None:
        """Make the blob known: all its bytes are kept and verified.  Raise StorageError."""

    def discard(self) -> None:
        """Forget the kept bytes: they are not the blob's.  Raise StorageError."""

    def close(self) -> None:
        """Let go of the file."""


class BlobReader:
    """A reader of one blob that fails instead of ending when size or digest is wrong.

    The bytes come from `keeper`, if it has some, and then from a stream: `stream` if it is
    open already, at the first of these bytes, or one of `open_at`, which is asked when the stream
    is needed.  A stream that breaks is replaced by another one of `open_at`; `pause` waits before,
    and may raise to give up.
    """

    def __init__(
        self,
        wanted: Descriptor,
        stream: Reader | None = None,
        *,
        open_at: OpenAt | None = None,
        keeper: Keeper | None = None,
        pause: Pause = time.sleep,
    ) -> None:
        self._wanted = wanted
        self._stream = stream
        self._open_at = open_at
        self._keeper = keeper
        self._kept = keeper.size if keeper else 0
        self._pause = pause
        self._hasher = wanted.digest.hasher()
        self._at = 0
        self._failures = 0
        self._slow = 0
        self._slow_at = 0
        self._done = False

    @property
    def was_kept(self) -> bool:
        """Whether the first bytes were kept by an earlier reading."""
        return self._kept > 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; raise VerificationError once they cannot be the promised ones.

        Raise StorageError for a disk that fails, RegistryUnavailableError for a stream that breaks
        ATTEMPTS times and gets no further, and whatever opening a stream raises.
        """
        from_keeper = self._at < self._kept
        try:
            data = self._next(min(size, self._wanted.size - self._at + 1))
        except OSError as exc:
            raise StorageError(f"blob {self._wanted.digest} cannot be read: {exc}") from exc
        self._at += len(data)
        self._hasher.update(data)
        if fault := self._fault(at_end=not data):
            if self._keeper is not None:
                self._keeper.discard()
            raise VerificationError(
                f"blob {self._wanted.digest} has {fault}",
                "try again; if it stays so, push the image again",
            )
        if self._keeper is not None:
            if data and not from_keeper:
                self._keeper.append(data)
            if not data and not self._done:
                self._keeper.complete()
                self._done = True
        return data

    def close(self) -> None:
        """Let go of the stream and of the kept file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._keeper is not None:
            self._keeper.close()

    def _next(self, size: int) -> bytes:
        """Return the next bytes, not yet verified: at most `size`, none at the end."""
        if self._keeper is not None and self._at < self._kept:
            return self._keeper.read(min(size, self._kept - self._at), self._at)
        while True:
            try:
                if self._stream is None:
                    # Nobody is asked for nothing: HTTP has status 416 for that.
                    if self._open_at is None or self._at >= self._wanted.size:
                        return b""
                    self._stream = self._open_at(self._at)
                data = self._stream.read(size)
            except BrokenStreamError as exc:
                self._wait(exc)
            else:
                self._failures = 0
                return data

    def _wait(self, exc: BrokenStreamError) -> None:
        """Wait until the stream, which broke, may be opened again; raise when it broke too often.

        Failures are counted anew after each byte that was read.  A stream that is too slow brings
        bytes, so it has a count of its own.
        """
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if isinstance(exc, SlowStreamError):
            self._slow = 1 if self._at - self._slow_at > _WORTH_IT else self._slow + 1
            self._slow_at = self._at
            if self._open_at is None or self._slow >= _SLOW_ATTEMPTS:
                raise RegistryUnavailableError(
                    f"blob {self._wanted.digest} comes too slowly at byte {self._at}: {exc.what}",
                    exc.hint,
                ) from exc
        self._failures += 1
        if self._open_at is None or self._failures >= ATTEMPTS:
            raise RegistryUnavailableError(
                f"blob {self._wanted.digest} broke off {self._failures} times at byte {self._at}: "
                f"{exc.what}",
                "check the network; the next trigger resumes it",
            ) from exc
        self._pause(backoff(self._failures))

    def _fault(self, *, at_end: bool) -> str:
        """Return what is wrong with the bytes up to here; nothing if they may be the blob's."""
        size = self._wanted.size
        if self._at > size or (at_end and self._at < size):
            amount = "more" if self._at > size else "fewer"
            return f"{amount} than the {size} bytes its descriptor says"
        if at_end and self._hasher.hexdigest() != self._wanted.digest.encoded:
            return "other content than its digest says"
        return ""
