"""The bytes of a layer on their way to the process of a conversion: a pipe, and who reads from it.

The daemon reads the layer, which verifies it, and so learns of every fault; the process reads the
pipe.  The pipe is also the read-ahead of one for the other.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from typing import Any

from syncd.oci import Reader

_PIECE = 256 << 10  # bytes of a layer that are read at a time
_PIPE = 256 << 10  # bytes that wait in a pipe, in the memory of the kernel


def pump(
    open_layer: Callable[[], Reader],
    hand_over: Callable[[int], None],
    waiting: Callable[[], AbstractContextManager[None]],
) -> None:
    """Read a layer to its end into a pipe, whose other end `hand_over` passes on.

    The layer is waited for in the context of `waiting`.  Return early when nobody reads the pipe
    any more.  Raise what opening and reading the layer raise; nothing was handed over if opening it
    fails.
    """
    with ExitStack() as stack:
        with waiting():
            layer = stack.enter_context(closing(open_layer()))
        source, sink = os.pipe()
        stack.callback(os.close, sink)
        try:
            with suppress(OSError):  # this user has many pipes already
                fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE)
            hand_over(source)
        finally:
            os.close(source)
        while data := _read(layer, waiting):
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(sink, rest) :]
            except BrokenPipeError:
                return


def _read(layer: Reader, waiting: Callable[[], AbstractContextManager[None]]) -> bytes:
    with waiting():
        return layer.read(_PIECE)


class PipedLayer:
    """A layer that comes through a pipe; `end` says whether all of it was right."""

    def __init__(self, pipe: int, end: Future[Any]) -> None:
        self._pipe = pipe
        self._end = end

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, none at the end; raise what reading the layer raises."""
        data = os.read(self._pipe, size)
        if not data:
            self._end.result()
        return data

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._pipe)
