"""What is free in the file system where something will be written."""

from __future__ import annotations

import os
from pathlib import Path

from syncd.errors import NoRoomError


def require_free(path: Path, needed: int, reserve: int, label: str) -> None:
    """Raise NoRoomError unless `needed` bytes and a `reserve` are free where `path` is or will be.

    `label` names the place in the message.  Space that only root may use does not count, as
    statvfs(3) tells it.  Raise OSError when the file system cannot be asked.
    """
    free, _ = free_and_total(path)
    require_room(free, needed, reserve, label)


def require_room(free: int, needed: int, reserve: int, label: str) -> None:
    """Raise NoRoomError unless `needed` bytes and a `reserve` are within `free` bytes."""
    if free < needed + reserve:
        kept = f" and {_gb(reserve)} in reserve" if reserve else ""
        raise NoRoomError(
            f"{label} has {_gb(free)} free, the job needs {_gb(needed)}{kept}",
            "remove what is not needed any more, or set keep or reserve lower",
        )


def free_and_total(path: Path) -> tuple[int, int]:
    """Return the bytes that are free where `path` is or will be, and those of its file system.

    Raise OSError when the file system cannot be asked.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
