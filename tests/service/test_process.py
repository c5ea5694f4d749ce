"""What `process` promises: the memory of the process is shown to nobody."""

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
