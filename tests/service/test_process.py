"""What `process` promises: memory is shown to nobody, and given back when it is free."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """\
import ctypes
from syncd.service.process import forbid_dumps
PR_GET_DUMPABLE = 3  # linux/prctl.h
before = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
forbid_dumps()
print(before, ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
"""


def test_forbid_dumps() -> None:
    """The kernel counts the process as one that is not dumped, which it did not before."""
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=True
    )
    assert printed.stdout.split() == ["1", "0"]


FREEING = """\
import sys
from pathlib import Path
from syncd.service.process import return_memory
if sys.argv[1] == "returning":
    return_memory()
bytearray(30 << 20)  # glibc takes pieces of this size for worth keeping from now on
pieces = [(bytearray(b"1") * (1 << 20), bytearray(b"1") * (100 << 10)) for _ in range(64)]
kept = [small for _, small in pieces]
del pieces
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20)
"""


def test_return_memory() -> None:
    """What a process frees in large pieces is the kernel's again, whatever lies between them."""
    sizes = {
        how: int(subprocess.check_output([sys.executable, "-c", FREEING, how], timeout=20))
        for how in ("keeping", "returning")
    }
    assert sizes["keeping"] - sizes["returning"] > 50, sizes
