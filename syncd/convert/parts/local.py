"""The parts that are here, read: from kept layers, and from frames of earlier templates."""

from __future__ import annotations

from syncd.convert.parts.index import KEPT_MAX, Framed, PartIndex, Place
from syncd.errors import LostFrameError


class LocalParts:
    """Reads what is here.  One thread uses it: what lies together is read together.

    The more of a layer's small contents were read one behind the other, the more are read at once;
    those that lie in another order cost a read each, of little more than their own bytes.
    """

    def __init__(self, index: PartIndex) -> None:
        self._index = index
        self._frame = b""
        self._plain = memoryview(b"")
        self._layer, self._begin, self._window = -1, 0, memoryview(b"")

    def content(self, place: Place) -> memoryview:
        """Return the bytes of a place; raise LostFrameError where they are gone."""
        if isinstance(place, Framed):
            if place.frame != self._frame:
                self._plain = memoryview(b"")  # so that there is one frame at a time in memory
                self._plain = memoryview(self._index.frames.plain(place.frame))
                self._frame = place.frame
            content = self._plain[place.offset : place.offset + place.size]
        else:
            begin = place.offset - self._begin
            end = begin + place.size
            if place.layer != self._layer or begin < 0 or end > len(self._window):
                follows = place.layer == self._layer and 0 <= begin < len(self._window) + KEPT_MAX
                ahead = min(2 * len(self._window), KEPT_MAX) if follows else 0
                size = max(place.size, ahead)
                self._window = memoryview(self._index.read(place.layer, place.offset, size))
                self._layer, self._begin, begin = place.layer, place.offset, 0
            content = self._window[begin : begin + place.size]
        if len(content) != place.size:
            raise LostFrameError("what was kept for later is shorter than it was")
        return content
