"""The table of a layer that is pulled whole: taken out of the blob while that goes by."""

from __future__ import annotations

from syncd.convert.parts.positions import Stretch
from syncd.oci import Reader


class PassingTable:
    """Passes a blob on as it is read, and keeps the bytes of its table as they go by."""

    def __init__(self, blob: Reader, place: Stretch) -> None:
        self.content = bytearray()
        self.close = blob.close
        self._blob = blob
        self._place = place
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes of the blob, none at its end."""
        data = self._blob.read(size)
        begin, end = self._place.offset - self._at, self._place.end - self._at
        self.content += data[max(begin, 0) : max(end, 0)]
        self._at += len(data)
        return data
