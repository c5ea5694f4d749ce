"""One heap for all threads of a process that converts, without what is large and rare.

The C library gives each thread a heap of its own, and keeps there what the thread freed.  The
threads of a conversion take and free pieces of megabytes in turn, so what all heaps keep is several
times what is in use at a time: a third of a conversion's memory.  Heaps of their own would spare
threads that allocate at the same moment a wait, but these allocate under the interpreter's lock.

Of a piece that is mapped by itself the kernel takes all pages back when it is freed, and gives new
ones, each cleared, to the next.  That is dear for frames of two megabytes, thousands of which come
and go, so these stay in the heap.  But once a larger piece was freed, a zstd window mostly, the C
library would have such in the heap, too, where other pieces are soon put into the room between
them: a pull by parts takes 10 MiB less since it does not.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_MAPPED = 4 << 20  # bytes from which on a piece is mapped by itself: more than a frame has
_KEPT = 2 * _MAPPED  # bytes that stay free at the end of the heap, as glibc would reckon it


def share_one_heap() -> None:
    """Have the threads that this process starts from now on take memory from one heap.

    Nothing changes where the C library is another one; nothing is raised.
    """
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_ARENA_MAX, 1)
        set_option(_M_MMAP_THRESHOLD, _MAPPED)
        set_option(_M_TRIM_THRESHOLD, _KEPT)
