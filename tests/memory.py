"""The peak of a process's memory, as the kernel tells it (proc_pid_status(5), VmHWM).

Not `ru_maxrss`: a process inherits that of the process that started it (getrusage(2)), so that a
small program started by large tests seems to be large, and a growth below their peak is not seen.
"""

from __future__ import annotations

from pathlib import Path


def peak(process: int | str = "self") -> int:
    """Return the most memory that a process has had since its start or `forget`, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def forget() -> None:
    """Let the peak be what this process has now (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


class Growth:
    """How far the memory of this process grew, at most, since the growth was made, in bytes."""

    def __init__(self) -> None:
        forget()
        self._before = peak()

    def now(self) -> int:
        """Return how far."""
        return peak() - self._before
