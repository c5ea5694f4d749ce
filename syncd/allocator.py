"""How this process frees memory: what the C library keeps, and how often Python looks for cycles.

Where the C library is not glibc, it keeps what it kept before, and nothing is raised.

Source: mallopt(3).
"""

from __future__ import annotations

import gc
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_YOUNG = 10_000  # objects after which Python looks for cycles, of which there are hardly any


def collect_seldom() -> None:
    """Have Python look for cycles more seldom than by itself: all threads wait meanwhile."""
    gc.set_threshold(_YOUNG)


def keep_freed(*, heaps: int, below: int) -> None:
    """Keep what is freed of pieces `below` some bytes, in so many heaps for all threads.

    A larger piece is mapped by itself, unless a heap has room for it, and goes back to the kernel
    when it is freed; so does what is free at the end of a heap, beyond twice as many bytes.  Call
    this before threads start: each stays with the heap that it began with.
    """
    import ctypes  # of which the command line has no use

    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_ARENA_MAX, heaps)
        set_option(_M_MMAP_THRESHOLD, below)
        set_option(_M_TRIM_THRESHOLD, 2 * below)
