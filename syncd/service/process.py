"""What the process asks for itself: that its memory is shown to nobody, and is given back.

The secrets are in the memory of the daemon.  A core file, and the files of a process in /proc,
would show that memory to other processes of the same user.  The unit forbids cores as well
(LimitCORE=0), but a core that the kernel pipes to a program ignores that limit (core(5)).

The C library keeps what threads freed for the same thread, and takes larger and larger pieces for
worth keeping (mallopt(3), M_MMAP_THRESHOLD).  Of a hundred documents of 4 MiB, read by many
threads, the process would keep some hundred MiB.

This module never raises: who refuses leaves the process as it was.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

from syncd.allocator import keep_freed

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_LARGE = 512 << 10  # bytes that a thread gives back to the kernel when it frees them
_HEAPS = 4  # heaps that threads share


def return_memory() -> None:
    """Make this process give large pieces of memory back as soon as they are free."""
    keep_freed(heaps=_HEAPS, below=_LARGE)


def forbid_dumps() -> None:
    """Make this process one that leaves no core, and whose memory only root reads (prctl(2)).

    What the process forks keeps this property; a program that it executes does not (execve(2)).
    """
    with suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
