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
"""

from __future__ import annotations

from syncd import allocator

_MAPPED = 4 << 20  # bytes from which on a piece is mapped by itself: more than a frame has


def share_one_heap() -> None:
    """Have the threads that this process starts from now on take memory from one heap."""
    allocator.keep(heaps=1, below=_MAPPED)
