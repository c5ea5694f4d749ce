"""Earlier templates whose frames a conversion can copy: which of them, and how many frames.

Their tables are read when the conversion begins, in the process that converts, and the memory that
they take is counted like any other.  A table that is missing, damaged or of another level is passed
over: it makes a conversion slower, never different.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syncd.convert.capacity import FRAME
from syncd.convert.frame_store import FrameTable
from syncd.limits import Hold

_SOURCES = 32  # templates whose frames are looked at
_FRAMES = 100_000  # of their frames that are held in memory, some hundred bytes each


def earlier_tables(
    places: Sequence[tuple[Path, Path]], level: int, hold: Hold
) -> list[tuple[Path, FrameTable]]:
    """Return the first templates of this level with their tables, as many as may be held.

    `places` are files of templates, each with the file of its table.  `hold` is told how much
    memory the tables take; what it raises is raised.
    """
    found: list[tuple[Path, FrameTable]] = []
    room = _FRAMES
    for template, place in places:
        table = FrameTable.read(place, bound=room)
        if table is not None and table.level == level:
            hold(FRAME * len(table.frames))
            found.append((template, table))
            room -= len(table.frames)
        if len(found) == _SOURCES:
            break
    return found
