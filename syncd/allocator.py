"""How much freed memory the C library keeps for this process, instead of giving it back.

Where the C library is not glibc, everything stays as it was, and nothing is raised.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def keep_freed(*, heaps: int, below: int) -> None:
    """Keep what is freed of pieces `below` some bytes, in so many heaps for all threads.

    A larger piece is mapped by itself, unless a heap has room for it, and goes back to the kernel
    when it is freed; so does what is free at the end of a heap, beyond twice as many bytes.  Call
    this before threads start: each stays with the heap that it began with.
    """
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_ARENA_MAX, heaps)
        set_option(_M_MMAP_THRESHOLD, below)
        set_option(_M_TRIM_THRESHOLD, 2 * below)
