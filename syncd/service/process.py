"""What the process asks of the kernel for itself: that its memory is shown to nobody.

The secrets are in the memory of the daemon.  A core file, and the files of a process in /proc,
would show that memory to other processes of the same user.  The unit forbids cores as well
(LimitCORE=0), but a core that the kernel pipes to a program ignores that limit (core(5)).

This module never raises: a kernel that refuses leaves the process as it was.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_dumps() -> None:
    """Make this process one that leaves no core, and whose memory only root reads (prctl(2)).

    What the process forks keeps this property; a program that it executes does not (execve(2)).
    """
    with suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
