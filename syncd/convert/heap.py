"""One heap for all threads of a process that converts, without what is large and rare.

The C library gives each thread a heap of its own, and keeps there what the thread freed.  The
threads of a conversion take and free pieces of megabytes in turn, so what all heaps keep is several
times what is in use at a time: a third of a conversion's memory.  Heaps of their own would spare
threads that allocate at the same moment a wait, but these allocate under the interpreter's lock.

Of a piece that is mapped by itself the kernel takes all pages back when it is freed, and gives new
ones, each cleared, to the next.  That is dear for frames of two megabytes, thousands of which come
and go, so these stay in the heap.  But once a larger piece was freed, mostly a zstd window of
8 MiB, the C library would put such into the heap, too, and other pieces soon lie in the room
between them: a pull by parts takes 10 MiB less since that is forbidden, a gzip image up to 6 more.
"""

from __future__ import annotations

from syncd.allocator import keep_freed

_MAPPED = 4 << 20  # bytes from which on a piece is mapped by itself: more than a frame has


def share_one_heap() -> None:
    """Have the threads that this process starts from now on take memory from one heap."""
    keep_freed(heaps=1, below=_MAPPED)
