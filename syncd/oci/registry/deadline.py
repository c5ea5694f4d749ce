"""The deadline of a whole look: a peer that sends a byte now and then cannot draw it out.

A time-out of requests bounds the wait for the next byte only, so a peer that drips could keep a
thread for days.  Here each wait for bytes ends at the thread's deadline, too.  A blob has no
deadline, since it may be of any size: a least rate bounds it (`syncd.oci.registry.stream`).
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection

_TOO_LONG = "the answer took too long as a whole"


class _Thread(threading.local):
    until = math.inf


_thread = _Thread()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound what this thread does with registries meanwhile; an earlier deadline stays in force."""
    before = _thread.until
    _thread.until = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _thread.until = before


def time_left() -> float:
    """Return the seconds that are left to this thread: infinity without a deadline."""
    return max(_thread.until - time.monotonic(), 0.0)


class _BoundedReads(io.RawIOBase):
    """The bytes of a connection; a wait for them ends at the deadline of the thread that reads."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket) -> None:
        self._raw = raw
        self._connection = connection
        self._patience = self._set = connection.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = time_left()
        if not left:
            raise TimeoutError(_TOO_LONG)
        wanted = self._patience
        if left != math.inf:
            wanted = min(left, self._patience or left)
        if wanted != self._set:
            self._connection.settimeout(wanted)
            self._set = wanted
        try:
            return cast("int | None", self._raw.readinto(buffer))
        except TimeoutError as exc:
            if time_left():
                raise
            raise TimeoutError(_TOO_LONG) from exc

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose headers and body are read with `_BoundedReads`."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_BoundedReads(raw, sock))


class Connection(HTTPConnection):
    """A connection that keeps the deadline of the thread that reads from it."""

    response_class = _Answer


class TlsConnection(HTTPSConnection):
    """The same, encrypted."""

    response_class = _Answer
