"""The parts that are here, by sha256: in the frames of earlier templates, and in kept layers.

Each kept layer carries the rows of its parts; the index is what these rows say together.  It is
made in memory, for one conversion, from the layers that were used last, and holds a bounded number
of parts.  What of it is lost is only fetched again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

from syncd.convert.frame_store import FrameStore
from syncd.convert.layer_record import LayerRecord
from syncd.convert.parts.log import ROW, Rows, decoded
from syncd.convert.scratch import ScratchSpace
from syncd.errors import LostFrameError
from syncd.limits import Hold

PARTS_MAX = 100_000
"""Parts that the index holds at most."""
PART = 300
"""Bytes of memory that a part takes in the index, about."""
_NTH = 40  # bits for the number of a row
_ROWS = (1 << _NTH) - 1


class Kept(NamedTuple):
    """Bytes in the small contents of a kept layer."""

    layer: int
    offset: int
    size: int


class Framed(NamedTuple):
    """Plain bytes of a frame."""

    frame: bytes
    offset: int
    size: int


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
        self._layers: list[tuple[BinaryIO, Rows]] = []
        self._intact: dict[int, bool] = {}
        self._known: dict[bytes, int] = {}
        self._filled = False

    def close(self) -> None:
        """Close the kept layers."""
        self._files.close()

    def is_empty(self) -> bool:
        """Tell whether no part is here at all; this is what reads the rows."""
        with self._lock:
            if not self._filled:
                self._fill()
                self._filled = True
        return not self._known

    def find(self, digest: bytes, size: int) -> Sequence[Kept | Framed]:
        """Return where the bytes of a part are; nothing when it is not here, or not whole."""
        found = self._known.get(digest)
        if found is None:
            return ()
        layer = found >> _NTH
        rows = self._layers[layer][1]
        _, length, frame, offset = ROW.unpack_from(rows.rows, (found & _ROWS) * ROW.size)
        if length != size:
            return ()
        if not frame:
            return (Kept(layer, offset, size),) if self._is_intact(layer) else ()
        largest = self.frames.sizes.largest
        names = rows.frames[frame - 1 : frame + (offset + size - 1) // largest]
        pieces, left = [], size
        for name in names:
            if not self.frames.has(name):
                return ()
            piece = Framed(name, offset, min(left, largest - offset))
            pieces.append(piece)
            left -= piece.size
            offset = 0
        return () if left else pieces

    def read(self, layer: int, offset: int, size: int) -> bytes:
        """Return bytes of a kept layer's small contents; raise LostFrameError."""
        file, _ = self._layers[layer]
        try:
            content = os.pread(file.fileno(), size, offset)
        except OSError as exc:
            raise LostFrameError("a kept layer cannot be read") from exc
        return content

    def _fill(self) -> None:
        parts = self._known
        for file in self._scratch.kept():
            with ExitStack() as otherwise:
                otherwise.enter_context(file)
                content = LayerRecord.parts_of(file)
                rows = decoded(content) if content else None
                if rows is None or not rows.rows:
                    continue
                count = len(rows.rows) // ROW.size
                if len(parts) + count > PARTS_MAX:
                    return
                self._hold(count * PART)
                otherwise.pop_all()
                self._files.enter_context(file)
            base = len(self._layers) << _NTH
            self._layers.append((file, rows))
            for nth, (digest, *_) in enumerate(ROW.iter_unpack(rows.rows)):
                parts.setdefault(digest, base + nth)

    def _is_intact(self, layer: int) -> bool:
        """Tell whether a kept layer is as it was written; it is read once to know."""
        intact = self._intact.get(layer)
        if intact is None:
            intact = self._intact[layer] = LayerRecord.is_intact(self._layers[layer][0])
        return intact
