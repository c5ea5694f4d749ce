"""What `convert` promises of memory: no image takes more than `limits.memory`, whatever it is.

Each image is converted in a process of its own, whose peak the kernel tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

BOUND = 72  # MiB of limits.memory; docs/reliability.md has the figures of the default
OVER = 10  # MiB that may be wrong with the estimates, one way


def conversion(case: str, bound: int) -> dict[str, Any]:
    """Convert the image of a case with so many MiB; return what became of it."""
    command = [sys.executable, "-m", "tests.convert.hungry", case, str(bound)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", ["implied", "files", "records"])
def test_refused(case: str) -> None:
    """An image that needs more is refused with what to do, before it has taken the memory."""
    found = conversion(case, BOUND)
    assert found["end"] == "LimitError"
    assert "raise limits.memory" in found["message"]
    assert found["grown"] <= BOUND + OVER


def test_held_within() -> None:
    """Four layers with windows of 128 MiB are converted one after the other."""
    found = conversion("windows", 384)
    assert found["end"] == "done"
    assert found["grown"] <= 384
