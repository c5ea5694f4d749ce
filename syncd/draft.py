"""A file that takes its name only when all its bytes are written and on the disk.

The bytes go to the disk while more of them come, so that the flush at the end finds little to
wait for: with one flush, a disk stands idle for as long as a processor works, and then a
processor for as long as the disk does.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from syncd.errors import StorageError

_STEP = 8 << 20  # bytes of output after which the disk is set to work


@contextmanager
def draft(output: Path) -> Iterator[BinaryIO]:
    """Give a file to write that takes the name `output` when all went well, else goes.

    Raise StorageError when the disk refuses.
    """
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with _Flushing(beside) as raw, io.BufferedRandom(raw) as file:
            yield cast(BinaryIO, file)
            file.flush()
            raw.settle()
        beside.replace(output)
    except OSError as exc:
        raise StorageError(
            f"{output} cannot be written: {exc.strerror}", "check its permissions and free space"
        ) from exc
    finally:
        with suppress(OSError):  # it took the name, or could never be made
            beside.unlink()


class _Flushing(io.FileIO):
    """A file that is flushed to the disk in the background, step by step."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flush: Future[None] | None = None
        self._behind = 0

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override] # it takes less
        """Write, and begin a flush when there is enough for one and none runs."""
        done = super().write(data)
        self._behind += done
        if self._behind >= _STEP and (self._flush is None or self._flush.done()):
            self._check()
            self._flush = self._flusher.submit(os.fdatasync, self.fileno())
            self._behind = 0
        return done

    def settle(self) -> None:
        """Ensure that all is on the disk; raise OSError, a flush's in the background too."""
        self._check()
        os.fsync(self.fileno())

    def close(self) -> None:
        """Close the file once no flush uses it."""
        self._flusher.shutdown()
        super().close()

    def _check(self) -> None:
        """Raise what the last flush raised: the kernel tells of a fault once (fsync(2))."""
        if self._flush is not None:
            self._flush.result()
