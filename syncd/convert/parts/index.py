"""The parts that are here, by sha256: in the frames of earlier templates, and in kept layers.

Each kept layer carries the rows of its parts; the index is what these rows say together.  It is
made in memory, for one conversion, from the layers that were used last, and holds a bounded number
of parts.  What of it is lost is only fetched again.  A layer that is damaged, or whose rows turn
out not to be true, is forgotten, on the disk as well: it costs the layers under way one attempt,
and no later one any.
"""

from __future__ import annotations

import hashlib
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple

from syncd.convert.frame_store import FrameStore
from syncd.convert.layer_record import LayerRecord
from syncd.convert.parts.rows import ROW, Rows, decoded
from syncd.convert.parts.table import DIGEST, Table
from syncd.convert.scratch import KeptFile, ScratchSpace
from syncd.errors import LimitError, LostFrameError
from syncd.limits import Hold

PARTS_MAX = 100_000
"""Parts of a layer in the index at most; with so many different ones the index is full."""
ROWS_MAX = 4 * PARTS_MAX
"""Rows of all layers in the index at most; many layers have the same parts."""
LAYERS_MAX = 128
"""Kept layers that are opened at most, and stay open if the index speaks of them."""
PART = ROW + 180
"""Bytes of memory that a part takes in the index, about."""
KEPT_MAX = 256 << 10
"""Bytes of a place in small contents at most: it is read as one."""
_AT_ONCE = 64  # parts that are looked for together at first
_NTH = 40  # bits for the number of a row
_ROWS = (1 << _NTH) - 1
_FRAMES = 1 << 50  # where frames begin, were they behind the small contents


class Kept(NamedTuple):
    """Bytes in the small contents of a kept layer."""

    layer: int
    offset: int
    size: int


class Framed(NamedTuple):
    """Plain bytes of a frame, which has `whole` bytes; a row of the layer says so."""

    layer: int
    frame: bytes
    offset: int
    size: int
    whole: int


Place = Kept | Framed
"""Where bytes are."""


class Run(NamedTuple):
    """The parts of a file from the number `first` on, before `end`; their bytes are in `places`.

    Without places, it is one part that is not here.
    """

    first: int
    end: int
    places: Sequence[Place]


class _Layer(NamedTuple):
    """A kept layer and its rows.

    `begins` has for each row the first one of the stretch that it lies in, `wholes` for each frame
    its plain bytes.
    """

    kept: KeptFile
    rows: Rows
    begins: Sequence[int]
    wholes: Sequence[int]


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
        self._layers: list[_Layer] = []
        self._forgotten: set[int] = set()
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
        absent = Run(first, first + 1, ())
        found = self._known.get(_key(table, first))
        if found is None:
            return absent
        layer, row = found >> _NTH, found & _ROWS
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
        try:
            content = os.pread(self._layers[layer].kept.file.fileno(), size, offset)
        except OSError as exc:
            raise LostFrameError("a kept layer cannot be read") from exc
        return content

    @property
    def forgotten(self) -> int:
        """How many layers were forgotten."""
        return len(self._forgotten)

    def forget_liars(self, table: Table, read: Callable[[Place], memoryview]) -> None:
        """Forget the layers that give other bytes than the parts of `table`.

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
            for layer in liars - self._forgotten:
                self._scratch.forget(self._layers[layer].kept)
            if not liars <= self._forgotten:
                forgotten, known = self._forgotten | liars, dict[bytes, int]()
                for layer in range(len(self._layers)):
                    if layer not in forgotten:
                        self._learn(layer, known)
                # Who sees the count plans without the liars; who plans with them sees it go up.
                self._known = known
                self._forgotten = forgotten

    def _places(
        self, layer: int, row: int, count: int, table: Table, first: int
    ) -> Sequence[Place]:
        """Return where the bytes of `count` rows lie, if they are these parts in one stretch."""
        _, rows, begins, wholes = self._layers[layer]
        last = row + count - 1
        if (
            last >= len(begins)
            or begins[last] > row
            or rows.digests[row * DIGEST : (last + 1) * DIGEST]
            != table.digests[first * DIGEST : (first + count) * DIGEST]
            or rows.sizes[row : last + 1] != memoryview(table.sizes)[first : first + count]
        ):
            return ()
        largest = self.frames.sizes.largest
        number, offset = rows.numbers[row], rows.offsets[row]
        size = sum(table.sizes[first : first + count])
        if not number:
            return [
                Kept(layer, offset + at, min(size - at, KEPT_MAX))
                for at in range(0, size, KEPT_MAX)
            ]
        places: list[Place] = []
        for nth in range(number - 1, number + (offset + size - 1) // largest):
            name = rows.frames[nth]
            if not self.frames.has(name):
                return ()
            piece = Framed(layer, name, offset, min(size, largest - offset), wholes[nth])
            places.append(piece)
            size, offset = size - piece.size, 0
        return places if not size else ()

    def _fill(self) -> None:
        """Take up the rows of the layers that were used last, of those that there is room for."""
        room = ROWS_MAX
        for kept in islice(self._scratch.kept(), LAYERS_MAX):
            with ExitStack() as otherwise:
                otherwise.enter_context(kept.file)
                content = LayerRecord.parts_of(kept.file)
                rows = decoded(content) if content else None
                if rows is None or not 0 < len(rows.sizes) <= min(room, PARTS_MAX):
                    continue
                room -= len(rows.sizes)
                try:
                    self._hold(len(rows.sizes) * PART)
                except LimitError:
                    return
                otherwise.pop_all()
                self._files.enter_context(kept.file)
            self._layers.append(_Layer(kept, rows, *_stretches(rows, self.frames.sizes.largest)))
            self._learn(len(self._layers) - 1, self._known)
            if len(self._known) >= PARTS_MAX:
                return

    def _learn(self, layer: int, known: dict[bytes, int]) -> None:
        """Add what the rows of a layer say to what is known.

        A part whose frames are gone here is perhaps known to an older layer.
        """
        rows, base = self._layers[layer].rows, layer << _NTH
        gone = [not self.frames.has(name) for name in rows.frames]
        all_here = not any(gone)
        for nth in range(len(rows.sizes)):
            if all_here or not any(gone[rows.frames_of(nth, self.frames.sizes.largest)]):
                known.setdefault(_key(rows, nth), base + nth)


def _key(parts: Table | Rows, nth: int) -> bytes:
    """Return what a part is known by: its digest and its size."""
    return parts.digest(nth) + parts.sizes[nth].to_bytes(8, "little")


def _stretches(rows: Rows, largest: int) -> tuple[array[int], array[int]]:
    """Return what is known of a layer by its rows: `begins` and `wholes`."""
    begins, wholes = array("I"), array("I", bytes(4 * len(rows.frames)))
    begin = follows = 0
    for nth, (number, offset, size) in enumerate(
        zip(rows.numbers, rows.offsets, rows.sizes, strict=True)
    ):
        at = number * largest + offset + _FRAMES * bool(number)
        if at != follows:
            begin = nth
        begins.append(begin)
        follows = at + size
        if number:
            last = number - 1 + (offset + size - 1) // largest
            for full in range(number - 1, last):
                wholes[full] = largest
            wholes[last] = max(wholes[last], (offset + size - 1) % largest + 1)
    return begins, wholes


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
