"""How much memory a zstd stream makes its reader take: found before the stream is read.

A frame says in its header how large a window of plain bytes its reader has to keep (RFC 8878,
section 3.1.1.1.2): a few bytes ask for 128 MiB.  A stream may have any number of frames, so the
whole stream is followed, from block to block; no content is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Self

from syncd.errors import ImageError
from syncd.limits import Hold, unbounded

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A5  # without its last four bits, of any value
_RLE = 1
_BLOCK = 128 << 10  # bytes of a block at most, which a reader keeps beside the window
_LONG = 16 << 20  # bytes of windows that no usual level of compression makes (zstd(1), --ultra)
_CONTENT_SIZE = (0, 2, 4, 8)
_DICTIONARY = (0, 1, 2, 4)


class Windows:
    """Follows one stream, and holds as much memory as its largest window so far needs.

    `hold` may raise; the bytes are not to be decompressed then.  Of several streams that share a
    `turn` one at a time has a long window; the others wait.  Leaving the context gives the memory
    back.
    """

    def __init__(self, hold: Hold = unbounded, turn: threading.Lock | None = None) -> None:
        self._hold = hold
        self._turn = turn or threading.Lock()
        self._has_turn = False
        self.held = 0
        self._walk = self._frames()
        self._need = next(self._walk)
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(-self.held)
        self.held = 0
        if self._has_turn:
            self._turn.release()
            self._has_turn = False

    def follow(self, data: bytes) -> None:
        """Take the next bytes of the stream; raise ImageError where it is no zstd stream."""
        at = 0
        while at < len(data):
            if self._need < 0:  # content, which is passed over
                step = min(-self._need, len(data) - at)
                at += step
                self._need += step
                if not self._need:
                    self._need = self._walk.send(b"")
                continue
            step = self._need - len(self._pending)
            self._pending += data[at : at + step]
            at += step
            if len(self._pending) == self._need:
                part, self._pending = self._pending, b""
                self._need = self._walk.send(part)

    def _frames(self) -> Generator[int, bytes, None]:
        """Walk through the stream: yield n for the next n bytes, or -n to pass over n bytes."""
        while True:
            magic = int.from_bytes((yield 4), "little")
            if magic >> 4 == _SKIPPABLE:
                size = int.from_bytes((yield 4), "little")
                if size:
                    yield -size
                continue
            if magic != _MAGIC:
                raise ImageError("its zstd stream is not valid: unknown frame")
            (descriptor,) = yield 1
            is_single = descriptor & 0x20
            self._reserve((yield from _window(descriptor, bool(is_single))))
            is_last = False
            while not is_last:
                header = int.from_bytes((yield 3), "little")
                is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
                stored = 1 if kind == _RLE else size
                if stored:
                    yield -stored
            if descriptor & 0x04:
                yield -4

    def _reserve(self, window: int) -> None:
        needed = window + 2 * _BLOCK
        if needed > _LONG and not self._has_turn:
            self._turn.acquire()
            self._has_turn = True
        if needed > self.held:
            self._hold(needed - self.held)
            self.held = needed


def _window(descriptor: int, is_single: bool) -> Generator[int, bytes, int]:
    """Read the rest of a frame's header; return the size of its window (RFC 8878, 3.1.1.1)."""
    window = 0
    if not is_single:
        (byte,) = yield 1
        base = 1 << (10 + (byte >> 3))
        window = base + (base >> 3) * (byte & 7)
    dictionary = _DICTIONARY[descriptor & 3]
    if dictionary:
        yield -dictionary
    size = _CONTENT_SIZE[descriptor >> 6] or int(is_single)
    if size:
        content = int.from_bytes((yield size), "little") + (256 if size == 2 else 0)
        window = content if is_single else window
    return window
