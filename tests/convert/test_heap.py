"""What `convert.heap` promises: what one thread freed is there for the next one."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """\
import sys, threading
from pathlib import Path
from syncd.convert.heap import share_one_heap
if sys.argv[1] == "one":
    share_one_heap()
bytearray(30 << 20)  # glibc takes pieces of this size for worth keeping from now on
turns = [threading.Event() for _ in range(9)]
def work(nth):
    turns[nth].wait()
    pieces = [bytearray(b"1") * (1 << 20) for _ in range(30)]
    del pieces
    turns[nth + 1].set()
    turns[8].wait()
threads = [threading.Thread(target=work, args=(nth,)) for nth in range(8)]
for thread in threads:
    thread.start()
turns[0].set()
turns[8].wait()
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20)
"""


def test_share_one_heap() -> None:
    """Eight threads, one after the other, need the memory of one."""
    sizes = {
        how: int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], timeout=20))
        for how in ("own", "one")
    }
    assert sizes["own"] - sizes["one"] > 100, sizes
