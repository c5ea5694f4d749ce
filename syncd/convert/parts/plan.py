"""Where the content of each file of a layer comes from: from here, from the registry, or zeros.

Pure, but for the look into the index.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from syncd.convert.parts.index import Framed, PartIndex, Place
from syncd.convert.parts.table import Part, Table
from syncd.errors import ImageError
from syncd.limits import Hold

SOURCES_MAX = 400_000
"""Places that the contents of a layer come from at most."""
SOURCE = 150
"""Bytes of memory that a source takes, about."""
MISSING = 200
"""Bytes of memory that a part takes beside it that is fetched, and its range."""
_STEP = 256  # sources whose memory is counted at a time

Source = Place | Part | int
"""Where bytes of a file come from: from here, from the registry, or so many zeros."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the content of each file of a table comes from; the parts that are fetched.

    The sources of a file end before the number in `ends`.  `decompressed` are the bytes of all
    frames of earlier templates that the sources need, one after the other; `framed` are those that
    are taken from them.
    """

    sources: list[Source]
    ends: array[int]
    missing: list[Part]
    decompressed: int
    framed: int


def plan_of(table: Table, index: PartIndex, hold: Hold) -> Plan:
    """Look which parts of a layer are here; `hold` is told how much memory the plan takes.

    Raise ImageError for parts in more than SOURCES_MAX places.
    """
    sources: list[Source] = []
    missing: list[Part] = []
    ends = array("Q")
    first = counted = held = decompressed = framed = 0
    frame = b""
    for end in table.file_ends:
        while first < end:
            if table.is_zeros(first):
                sources.append(table.sizes[first])
                first += 1
                continue
            _, first, places = index.find(table, first, end)
            if not places:
                missing.append(table.part(first - 1))
                sources.append(missing[-1])
            for place in places:
                if isinstance(place, Framed):
                    framed += place.size
                    if place.frame != frame:
                        frame = place.frame
                        decompressed += place.whole
                sources.append(place)
            if len(sources) - counted >= _STEP:
                counted, held = len(sources), _held(sources, missing, held, hold)
        ends.append(len(sources))
    _held(sources, missing, held, hold)
    return Plan(sources, ends, missing, decompressed, framed)


def _held(sources: list[Source], missing: list[Part], held: int, hold: Hold) -> int:
    """Tell how much memory a plan takes beyond what is held for it; return how much that is."""
    if len(sources) > SOURCES_MAX:
        raise ImageError(f"its parts lie in more than {SOURCES_MAX} places")
    taken = SOURCE * len(sources) + MISSING * len(missing)
    hold(taken - held)
    return taken
