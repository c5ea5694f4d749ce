"""What `convert.heap` promises: what was freed is there for the next piece, or is given back."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

BEGIN = """\
import resource, sys, threading
from pathlib import Path
from syncd.convert.heap import share_one_heap
if sys.argv[1] == "shared":
    share_one_heap()
bytearray(30 << 20)  # glibc takes pieces of this size for worth keeping from now on
"""
THREADS = """\
turns = [threading.Event() for _ in range(17)]
def work(nth):
    turns[nth].wait()
    pieces = [bytearray(b"1") * (1 << 20) for _ in range(6)]
    del pieces
    turns[nth + 1].set()
    turns[16].wait()
threads = [threading.Thread(target=work, args=(nth,)) for nth in range(16)]
for thread in threads:
    thread.start()
turns[0].set()
turns[16].wait()
"""
WINDOWS = """\
pieces = [bytearray(b"1") * (1 << size) for _ in range(16) for size in (23, 20)]
del pieces[::2]  # each has a small one behind it, which stays
"""
FRAMES = """\
for _ in range(100):
    bytearray(b"1") * (2 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
END = """\
print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20)
"""


def printed(how: str, work: str) -> int:
    """Return the number that a process prints after some work."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    argv = [sys.executable, "-c", BEGIN + work, how]
    return int(subprocess.check_output(argv, env=own, timeout=20))


def resident(how: str, work: str) -> int:
    """Return the MiB of memory that a process has after some work."""
    return printed(how, work + END)


def test_share_one_heap() -> None:
    """Sixteen threads, one after the other, need the memory of one."""
    assert resident("own", THREADS) - resident("shared", THREADS) > 30


def test_what_is_large_is_given_back() -> None:
    """What windows of 8 MiB took is given back though there are other pieces between them."""
    assert resident("own", WINDOWS) - resident("shared", WINDOWS) > 100


def test_frames_stay_in_the_heap() -> None:
    """A hundred pieces of 2 MiB, one after the other, need the pages of a few."""
    assert printed("shared", FRAMES) < 30 * (2 << 20) // resource.getpagesize()
