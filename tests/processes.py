"""Processes that tests look at: whether they are gone, and where one hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

MARK = "hangs"
"""The file in which a process that hangs has its id."""


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def no_thread(_: object) -> NoReturn:
    """Refuse to start a thread, as a machine does that has none left."""
    raise RuntimeError("can't start new thread")


def is_gone(pid: int) -> bool:
    """Tell whether a process is gone, or a zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def hanging_below(folder: Path) -> int:
    """Wait for a process that hangs, with its mark below a folder; return its id."""
    until(lambda: any(folder.rglob(MARK)))
    return int(next(folder.rglob(MARK)).read_text())
