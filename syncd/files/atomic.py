"""A file that gets its name only when all its bytes are written and on the disk.

Parts of the file are flushed to the disk while later parts are written, so that the flush at the
end has little left to do.  With a single flush at the end, the disk would be idle while the
processor works, and the processor would be idle while the disk works.

The folder is not flushed: after a power cut the name stands for the old file or for the new file,
and both are whole.
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

_STEP = 8 << 20  # bytes written since the last flush, after which the next flush begins


@contextmanager
def atomic_write(output: Path) -> Iterator[BinaryIO]:
    """Provide a file for writing, which gets the name `output` at the end of the block.

    The file is removed when the block raises; a file that had the name before stays then.  Raise
    StorageError when the disk refuses, and for a name that is taken by something else than a file:
    root would replace /dev/null by a file without a word.
    """
    hidden = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        if output.exists() and not output.is_file():
            raise StorageError(f"{output} is there already and is no file", "name a file to write")
        with _FlushedFile(hidden) as raw, io.BufferedRandom(raw) as file:
            yield cast(BinaryIO, file)
            file.flush()
            raw.settle()
        hidden.replace(output)
    except OSError as exc:
        raise StorageError(
            f"{output} cannot be written: {exc.strerror}", "check its permissions and free space"
        ) from exc
    finally:
        with suppress(OSError):  # the file got its name, or could not be created
            hidden.unlink()


class _FlushedFile(io.FileIO):
    """A file that a thread flushes to the disk while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flush: Future[None] | None = None
        self._unflushed = 0

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override] # FileIO takes any buffer
        """Write `data`; begin a flush when `_STEP` bytes are unflushed and no flush runs."""
        written = super().write(data)
        self._unflushed += written
        if self._unflushed >= _STEP and (self._flush is None or self._flush.done()):
            self._check()
            self._flush = self._flusher.submit(os.fdatasync, self.fileno())
            self._unflushed = 0
        return written

    def settle(self) -> None:
        """Ensure that all bytes are on the disk.

        Raise OSError, also for a fault that an earlier flush in the background met.
        """
        self._check()
        os.fsync(self.fileno())

    def close(self) -> None:
        """Close the file after the last flush in the background has ended."""
        self._flusher.shutdown()
        super().close()

    def _check(self) -> None:
        """Raise the error of the last flush: the kernel reports a fault only once (fsync(2))."""
        if self._flush is not None:
            self._flush.result()
