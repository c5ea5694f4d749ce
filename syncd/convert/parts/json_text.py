"""JSON from a zstd stream, a value at a time: never more in memory than a value and a piece.

A table of contents has hundreds of bytes for each file of a layer, and what the json module makes
of them takes ten times as much.  So a document is read piece by piece, the values in it one after
the other, and each value is bounded.

Sources: RFC 8259 (JSON); RFC 8878 (zstd).
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import zstandard

from syncd.convert.decompress import ZSTD_WINDOW_MAX
from syncd.convert.zstd_windows import Windows
from syncd.errors import ImageError
from syncd.limits import Hold

VALUE_MAX = 64 << 10
"""Characters of one value of a table at most.  A value that long has fewer elements than a whole
document may have (`syncd.oci.document`, VALUES_MAX)."""
_PIECE = 256 << 10
_BETWEEN = "},{"
_BLANK = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def pieces(stored: bytes, plain: int, hold: Hold) -> Iterator[bytes]:
    """Yield the `plain` bytes of a zstd stream in pieces; raise ImageError for any other number.

    `hold` is told how much memory the stream takes while it is read.
    """
    with Windows(hold) as windows:
        windows.follow(stored)
        engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
        reader = engine.stream_reader(io.BytesIO(stored), read_across_frames=True)
        left = plain
        try:
            while left >= 0 and (piece := reader.read(min(_PIECE, left + 1))):
                left -= len(piece)
                yield piece
        except zstandard.ZstdError as exc:
            raise ImageError(f"zstd cannot read it: {exc}") from exc
    if left:
        raise ImageError(f"it does not have the {plain} bytes that the annotations name")


class JsonText:
    """A JSON text that comes in pieces; every method raises ImageError where it is none."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._at = 0
        self._ended = False
        self._one_by_one = False

    def next(self) -> str:
        """Return the next character that is no space, and stay there; nothing at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, *marks: str) -> str:
        """Pass over the next character that is no space, which is one of `marks`; return it."""
        found = self.next()
        if found not in marks:
            raise ImageError(f"{found!r} stands where {' or '.join(marks)} has to")
        self._at += 1
        return found

    def value(self) -> Any:
        """Return the next value, which is no longer than VALUE_MAX."""
        self.next()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except (ValueError, RecursionError) as exc:
                if self._ended or len(self._text) - self._at > VALUE_MAX or not self._more():
                    raise ImageError(f"it is not JSON: {exc!s:.100}") from exc
                continue
            # A number may go on in the next piece.
            if end == len(self._text) and self._more():
                continue
            if end - self._at > VALUE_MAX:
                raise ImageError(f"a value in it is longer than {VALUE_MAX} characters")
            self._at = end
            return value

    def elements(self) -> Iterator[Any]:
        """Yield the elements of the next value, an array."""
        self.expect("[")
        if self.next() == "]":
            self.expect("]")
            return
        while True:
            yield from self._objects()
            yield self.value()
            if self.expect(",", "]") == "]":
                return

    def _objects(self) -> Sequence[Any]:
        """Take as many objects as surely are whole in the text that is here, and not the last.

        To read them one by one takes four times as long.  Where a text in them looks like their
        end, none is taken before the next piece: a second look at the same text would fail, too.
        """
        end = -1 if self._one_by_one else self._text.rfind(_BETWEEN, self._at)
        if end < 0:
            self._one_by_one = True
            return ()
        try:
            found = json.loads(f"[{self._text[self._at : end + 1]}]")
        except (ValueError, RecursionError):
            self._one_by_one = True
            return ()
        self._at = end + 2
        return cast(Sequence[Any], found)

    def _more(self) -> bool:
        """Take the next piece, and let go of what was read; return whether there was one."""
        piece = next(self._source, None)
        self._ended = piece is None
        self._one_by_one = False
        self._text = self._text[self._at :] + self._decoder.decode(piece or b"", self._ended)
        self._at = 0
        return not self._ended
