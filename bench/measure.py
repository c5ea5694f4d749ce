"""How things are measured, and how they are told: medians, in a row of the table."""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.e2e.command import CACHE, run, wait_for
from tests.e2e.daemon import Job, Syncd

RUNS = 5
_PIECE = bytes(1 << 20)
_MEMORY = 1200 << 20  # bytes that a job takes at most, with the files that it leaves in the cache
SYNCD = Path(sys.executable).with_name("syncd")
FOLDER = CACHE / "bench"

console = Console(highlight=False, soft_wrap=True, width=140)


def job_time(daemon: Syncd, reference: str) -> float:
    """Return how long a job of the daemon takes, in seconds.  To ask often would cost, too.

    No clock runs while the disk still writes what an earlier job left.
    """
    os.sync()
    touch_memory()
    (submitted,) = daemon.request_sync([reference]).body["jobs"]

    def done() -> Job | None:
        found = daemon.job(submitted["id"])
        return found if found["state"] == "done" else None

    job = wait_for(f"the job of {reference}", done, timeout=60, pause=0.5)
    assert job["outcome"] in ("published", "unchanged"), job
    began, ended = (datetime.fromisoformat(job[moment]) for moment in ("started", "finished"))
    return (ended - began).total_seconds()


def removed(folder: Path) -> None:
    """Remove a folder, and wait for the disk, so that no clock runs while it makes room."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def touch_memory() -> None:
    """Use free memory for a moment, so that no clock runs while a host gives it.

    A virtual machine gives free pages back to its host after some seconds (Linux: free page
    reporting), and waits some milliseconds for each MiB of them that it uses again.  The memory is
    used as most of a job's is, by a file; Linux would give a process other pages.
    """
    size = min(_MEMORY, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE // 2)
    with tempfile.TemporaryFile(dir=FOLDER, buffering=0) as file:
        for _ in range(0, size, len(_PIECE)):
            file.write(_PIECE)


def peak_memory(*argv: str | Path) -> float:
    """Return the peak memory in MiB of the largest process that a command needs."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    return int(run(sys.executable, "-c", code, *argv)) / 1024


def timed(act: Callable[[], object]) -> float:
    """Return how long an act takes, in seconds."""
    touch_memory()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def add(
    table: Table,
    measure: str,
    ours: list[float],
    against: tuple[str, list[float]],
    goal: str,
    *,
    unit: str = "s",
) -> None:
    """Add a row of medians, and print it at once."""
    mine, theirs = statistics.median(ours), statistics.median(against[1])
    digits = 3 if unit == "s" else 0
    row = measure, f"{mine:.{digits}f} {unit}", against[0], f"{theirs:.{digits}f} {unit}"
    ratio = f"{theirs / mine:.2f}"
    table.add_row(*row, ratio, goal)
    console.print(f"{measure}: {', '.join(row[1:])}, ratio {ratio}")
