"""The digest of a file that is read slowly, in the background of everything else.

What lies in a storage is read again now and then, only to see whether it is still what it was.
Such a read takes no more than its rate, waits for other users of the disk where the kernel can
let it (idle I/O priority), and leaves nothing in the page cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 4 << 20
# ioprio_set(2) has no wrapper in the C library: its number and classes are the kernel's.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}.get(platform.machine())
_THIS_THREAD = (1, 0)  # IOPRIO_WHO_PROCESS, and the calling thread
_IDLE, _DEFAULT = 3 << 13, 0


def paced_digest(
    path: Path,
    algorithm: str,
    rate: int | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> str:
    """Return the hex digest of a file, read at `rate` bytes a second at most; None is no bound.

    `pause` waits so many seconds, and may raise to give up.  Raise OSError.
    """
    hasher, begun, done = hashlib.new(algorithm), time.monotonic(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with _idle(wanted=rate is not None):
            while data := os.pread(descriptor, _CHUNK, done):
                hasher.update(data)
                if rate is not None:
                    os.posix_fadvise(descriptor, done, len(data), os.POSIX_FADV_DONTNEED)
                done += len(data)
                ahead = 0.0 if rate is None else done / rate - (time.monotonic() - begun)
                pause(max(ahead, 0.0))
    finally:
        os.close(descriptor)
    return hasher.hexdigest()


@contextmanager
def _idle(*, wanted: bool) -> Iterator[None]:
    """Give this thread the idle I/O priority meanwhile, where that is known how."""
    if not wanted or _IOPRIO_SET is None:
        yield
        return
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall(_IOPRIO_SET, *_THIS_THREAD, _IDLE)  # a refusal makes the read no worse
    try:
        yield
    finally:
        syscall(_IOPRIO_SET, *_THIS_THREAD, _DEFAULT)
