"""The parts that are here, by sha256: in the frames of earlier templates, and in kept layers.

Each kept layer carries the rows of its parts; the index is what these rows say together.  It is
made in memory, for one conversion, from the layers that were used last, and holds a bounded number
of parts.  What of it is lost is only fetched again.  A layer whose rows turn out not to be true is
forgotten, on the disk as well, so that it costs one layer one attempt, and no later one any.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from syncd.convert.frame_store import FrameStore
from syncd.convert.layer_record import LayerRecord
from syncd.convert.parts.rows import ROW, Rows, decoded
from syncd.convert.parts.table import DIGEST, Table
from syncd.convert.scratch import KeptFile, ScratchSpace
from syncd.errors import LostFrameError
from syncd.limits import Hold

PARTS_MAX = 100_000
"""Parts that the index holds at most."""
LAYERS_MAX = 128
"""Kept layers that the index speaks of at most: each is an open file."""
PART = ROW + 180
"""Bytes of memory that a part takes in the index, about."""
_AT_ONCE = 64  # parts that are looked for together at first
_NTH = 40  # bits for the number of a row
_ROWS = (1 << _NTH) - 1


class Kept(NamedTuple):
    """Bytes in the small contents of a kept layer."""

    layer: int
    offset: int
    size: int


class Framed(NamedTuple):
    """Plain bytes of a frame; a row of the layer says so."""

    layer: int
    frame: bytes
    offset: int
    size: int


Place = Kept | Framed
"""Where bytes are."""


class Run(NamedTuple):
    """The parts of a file from the number `first` on, before `end`; their bytes are in `places`.

    Without places, it is one part that is not here.
    """

    first: int
    end: int
    places: Sequence[Place]


class PartIndex:
    """What is here, for one conversion.  Safe to use from several threads.

    `hold` is told how much memory it takes.
    """

    def __init__(self, scratch: ScratchSpace, frames: FrameStore, hold: Hold) -> None:
        self.frames = frames
        self._scratch = scratch
        self._hold = hold
        self._lock = threading.Lock()
        self._files = ExitStack()
        self._layers: list[tuple[KeptFile, Rows]] = []
        self._intact: dict[int, bool] = {}
        self._liars: set[int] = set()
        self._known: dict[bytes, int] = {}
        self._filled = False

    def close(self) -> None:
        """Close the kept layers."""
        self._files.close()

    def is_empty(self) -> bool:
        """Tell whether no part is here at all; this is what reads the rows."""
        with self._lock:
            if not self._filled:
                self._filled = True
                self._fill()
        return not self._known

    def find(self, table: Table, first: int, end: int) -> Run:
        """Return the parts from `first` on, before `end`, that lie here one behind the other.

        Mostly these are all of a file, which takes one look.  Of a longer run the first parts alone
        may be returned, so that a look never costs more than the parts that it finds.
        """
        found = self._known.get(table.digest(first))
        absent = Run(first, first + 1, ())
        if found is None:
            return absent
        layer, row = found >> _NTH, found & _ROWS
        if not self._is_intact(layer):
            return absent
        count = min(end - first, _AT_ONCE)
        while not (places := self._places(layer, row, count, table, first)):
            count //= 2
            if not count:
                return absent
        while count >= _AT_ONCE and first + count < end:
            more = min(2 * count, end - first)
            longer = self._places(layer, row, more, table, first)
            if not longer:
                break
            places, count = longer, more
        return Run(first, first + count, places)

    def read(self, layer: int, offset: int, size: int) -> bytes:
        """Return bytes of a kept layer's small contents; raise LostFrameError."""
        kept, _ = self._layers[layer]
        try:
            content = os.pread(kept.file.fileno(), size, offset)
        except OSError as exc:
            raise LostFrameError("a kept layer cannot be read") from exc
        return content

    def forget_liars(self, table: Table, read: Callable[[Place], memoryview]) -> bool:
        """Forget the layers that gave other bytes than the parts of `table`; tell if there are any.

        `read` returns the bytes of a place.  Raise what it raises.
        """
        liars = set()
        first = 0
        for file_end in table.file_ends:
            while first < file_end:
                if table.is_zeros(first):
                    first += 1
                    continue
                run = self.find(table, first, file_end)
                if run.places and not _is_right(map(read, run.places), table, run):
                    liars.add(run.places[0].layer)
                first = run.end
        with self._lock:
            for liar in liars - self._liars:
                self._scratch.forget(self._layers[liar][0])
            if liars - self._liars:
                self._liars |= liars
                self._know()
        return bool(liars)

    def _places(
        self, layer: int, row: int, count: int, table: Table, first: int
    ) -> Sequence[Place]:
        """Return where the bytes of `count` rows lie, if they are these parts in one stretch."""
        rows, last = self._layers[layer][1], row + count - 1
        if (
            rows.digests[row * DIGEST : (last + 1) * DIGEST]
            != table.digests[first * DIGEST : (first + count) * DIGEST]
            or rows.sizes[row : last + 1] != memoryview(table.sizes)[first : first + count]
        ):
            return ()
        largest = self.frames.sizes.largest
        number, offset = rows.numbers[row], rows.offsets[row]
        size = sum(table.sizes[first : first + count])
        stretch = (rows.numbers[last] - number) * largest + rows.offsets[last] - offset
        if stretch != size - rows.sizes[last] or bool(number) != bool(rows.numbers[last]):
            return ()
        if not number:
            return (Kept(layer, offset, size),)
        places: list[Place] = []
        for name in rows.frames[number - 1 : number + (offset + size - 1) // largest]:
            if not self.frames.has(name):
                return ()
            piece = Framed(layer, name, offset, min(size, largest - offset))
            places.append(piece)
            size, offset = size - piece.size, 0
        return places if not size else ()

    def _fill(self) -> None:
        """Take up the rows of the layers that were used last."""
        count = 0
        for kept in self._scratch.kept():
            with ExitStack() as otherwise:
                otherwise.enter_context(kept.file)
                content = LayerRecord.parts_of(kept.file)
                rows = decoded(content) if content else None
                if rows is None or not rows.sizes:
                    continue
                count += len(rows.sizes)
                if count > PARTS_MAX or len(self._layers) == LAYERS_MAX:
                    break
                self._hold(len(rows.sizes) * PART)
                otherwise.pop_all()
                self._files.enter_context(kept.file)
            self._layers.append((kept, rows))
        self._know()

    def _know(self) -> None:
        """Say together what the rows of all layers say that were not forgotten."""
        known: dict[bytes, int] = {}
        for layer, (_, rows) in enumerate(self._layers):
            if layer not in self._liars:
                base = layer << _NTH
                for nth in range(len(rows.sizes)):
                    known.setdefault(rows.digest(nth), base + nth)
        self._known = known

    def _is_intact(self, layer: int) -> bool:
        """Tell whether a kept layer is as it was written; it is read once to know."""
        intact = self._intact.get(layer)
        if intact is None:
            intact = self._intact[layer] = LayerRecord.is_intact(self._layers[layer][0].file)
        return intact


def _is_right(contents: Iterable[memoryview], table: Table, run: Run) -> bool:
    """Tell whether bytes, one content behind the other, are those of a run's parts."""
    coming = iter(contents)
    content = memoryview(b"")
    for nth in range(run.first, run.end):
        zeros, hasher, left = 0, hashlib.sha256(), table.sizes[nth]
        while left:
            content = content or next(coming)
            piece, content = content[:left], content[left:]
            hasher.update(piece)
            zeros += bytes(piece).count(0)
            left -= len(piece)
        if table.is_zeros(nth):
            if zeros < table.sizes[nth]:
                return False
        elif hasher.digest() != table.digest(nth):
            return False
    return True
