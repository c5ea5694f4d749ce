"""A file flushed to the disk while it is written, so that the flush at the end has little left.

With a single flush at the end, the disk would be idle while the processor works, and the processor
would be idle while the disk works.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

_STEP = 8 << 20  # bytes written since the last flush, after which the next flush begins


class Flusher:
    """A thread that flushes the file `descriptor`, which whoever opened it closes afterwards.

    With `is_read_here` false, what is flushed leaves the page cache: it would only take memory from
    others, and Linux counts it as memory of the service.
    """

    def __init__(self, descriptor: int, *, is_read_here: bool = True) -> None:
        self._descriptor = descriptor
        self._is_read_here = is_read_here
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flush")
        self._flush: Future[None] | None = None
        self._is_over = False  # no flush begins any more
        self._unflushed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wrote(self, amount: int) -> None:
        """Hear of bytes that were written; begin a flush of 8 MiB and more, if no flush runs.

        Raise OSError for a fault that an earlier flush met.
        """
        self._unflushed += amount
        is_idle = self._flush is None or self._flush.done()
        if self._unflushed >= _STEP and is_idle and not self._is_over:
            self._check()
            try:
                self._flush = self._thread.submit(self._flush_data)
            except RuntimeError:
                # No thread can be had, so that `settle` has more to do.  What is queued now must
                # not be done by the thread of a later flush: its fault would be nobody's.
                self._is_over = True
            self._unflushed = 0

    def settle(self) -> None:
        """Ensure that all bytes are on the disk.

        Raise OSError, also for a fault that an earlier flush met.
        """
        self._check()
        os.fsync(self._descriptor)
        self._leave_cache()

    def close(self) -> None:
        """Wait for the last flush."""
        self._thread.shutdown()

    def _flush_data(self) -> None:
        os.fdatasync(self._descriptor)
        self._leave_cache()

    def _leave_cache(self) -> None:
        if not self._is_read_here:
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _check(self) -> None:
        """Raise the error of the last flush: the kernel reports a fault only once (fsync(2))."""
        if self._flush is not None:
            self._flush.result()
