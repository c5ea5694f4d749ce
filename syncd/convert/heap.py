"""One heap for all threads of a process that converts.

The C library gives each thread a heap of its own, and keeps there what the thread freed.  The
threads of a conversion take and free pieces of megabytes in turn, so what all heaps keep is several
times what is in use at a time: a third of a conversion's memory.  Heaps of their own would spare
threads that allocate at the same moment a wait, but these allocate under the interpreter's lock.

Source: mallopt(3), M_ARENA_MAX.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8  # malloc.h of glibc


def share_one_heap() -> None:
    """Have the threads that this process starts from now on take memory from one heap.

    Nothing changes where the C library is another one; nothing is raised.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
