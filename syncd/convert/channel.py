"""What the daemon and the process of a conversion tell each other: JSON objects, one a line.

The process reads hostile images, so nothing that comes from it is believed: a message is bounded,
is data and never code, and what is no message at all is a NonsenseError.  Errors keep their types
on the way.  A descriptor can go to the process beside a message, never back.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from syncd.convert.capacity import CrowdedError
from syncd.errors import (
    ImageError,
    NoProcessError,
    RegistryError,
    RegistryUnavailableError,
    StorageError,
    SyncdError,
)
from syncd.oci import Range

Message = dict[str, Any]

LONGEST = 256 << 10
"""Bytes of a message at most."""
RANGES_MAX = 1000
"""Ranges of a blob that are asked for at a time, at most."""
_READ = 64 << 10
_TEXT = 4_000  # characters of an error's sentences that are passed on
_FDS = 8  # descriptors that may come at a time
_SEND = 60.0  # seconds for which the other side may take nothing


class NonsenseError(Exception):
    """What the other side of a channel sent is no message, or not one that makes sense now."""


class QuietError(Exception):
    """The other side of a channel has said nothing for a while."""


class Channel:
    """One side of a connection.  Several threads may send, one receives.

    Descriptors that come beside messages are closed, unless `trusts` the other side.
    """

    def __init__(self, connection: socket.socket, *, trusts: bool = False) -> None:
        connection.settimeout(_SEND)
        self._trusts = trusts
        self._connection = connection
        self._sending = threading.Lock()
        self._came = bytearray()
        self._descriptors: deque[int] = deque()
        self._waiting = select.poll()
        self._waiting.register(connection, select.POLLIN)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message, and a descriptor beside it; raise OSError when nobody takes it."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._sending:
            if descriptor is not None:
                sent = socket.send_fds(self._connection, [line], [descriptor])
                line = line[sent:]
            self._connection.sendall(line)

    def send_content(self, content: bytes) -> None:
        """Send bytes for `receive_content`; raise OSError when nobody takes them."""
        with self._sending:
            self._connection.sendall(b"%d\n" % len(content))
            self._connection.sendall(content)

    def receive(self, timeout: float | None = None) -> Message | None:
        """Return the next message, or None once the other side is gone.

        Raise QuietError when none came in so many seconds, NonsenseError for anything else.
        """
        line = self._line(timeout)
        if line is None:
            return None
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise NonsenseError("a message is no JSON") from exc
        if not isinstance(message, dict):
            raise NonsenseError("a message is no object")
        return message

    def receive_content(self) -> bytes:
        """Return what the other side sent by `send_content`; raise EOFError when it is gone."""
        line = self._line(None)
        size = int(line or b"0")
        while line is not None and len(self._came) < size:
            if not self._fill(None):
                line = None
        if line is None:
            raise EOFError
        content = bytes(self._came[:size])
        del self._came[:size]
        return content

    def descriptor(self) -> int:
        """Return the descriptor that came beside a message, in the order of the messages."""
        return self._descriptors.popleft()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _line(self, timeout: float | None) -> bytes | None:
        """Return the next line; None at the end of what the other side sent."""
        looked = 0
        while (end := self._came.find(b"\n", looked)) < 0:
            looked = len(self._came)
            if looked > LONGEST:
                raise NonsenseError("a message has no end")
            if not self._fill(timeout):
                return None
        line = bytes(self._came[:end])
        del self._came[: end + 1]
        return line

    def _fill(self, timeout: float | None) -> bool:
        """Wait for further bytes and take them; return whether some came before the end."""
        if not self._waiting.poll(None if timeout is None else timeout * 1000):
            raise QuietError
        try:
            if self._trusts:
                came, descriptors, _, _ = socket.recv_fds(self._connection, _READ, _FDS)
                self._descriptors.extend(descriptors)
            else:
                came = self._connection.recv(_READ)
        except ConnectionError:
            return False
        self._came += came
        return bool(came)


def number(message: Message, key: str) -> int:
    """Return a number of a message; raise NonsenseError when it has none."""
    value = message.get(key)
    if type(value) is not int or abs(value) > 1 << 62:
        raise NonsenseError(f"{key} is no number")
    return value


def flag(message: Message, key: str) -> bool:
    """Return a yes or no of a message; raise NonsenseError when it has none."""
    value = message.get(key)
    if type(value) is not bool:
        raise NonsenseError(f"{key} is neither yes nor no")
    return value


def ranges_of(message: Message, size: int) -> list[Range]:
    """Return the ranges of a blob of so many bytes; raise NonsenseError when they are none."""
    said = message.get("ranges")
    if not isinstance(said, list) or not 0 < len(said) <= RANGES_MAX:
        raise NonsenseError("ranges are none, or too many")
    found, end = [], 0
    for one in said:
        if not isinstance(one, list) or len(one) != 2 or any(type(part) is not int for part in one):
            raise NonsenseError("a range is none")
        offset, length = one
        if not end <= offset < offset + length <= size:
            raise NonsenseError("a range that the blob does not have")
        found.append(Range(offset, length))
        end = offset + length
    return found


def text(message: Message, key: str) -> str:
    """Return a text of a message; raise NonsenseError when it has none, or not a printable one."""
    value = message.get(key)
    if not isinstance(value, str) or not value.isprintable():
        raise NonsenseError(f"{key} is no text")
    return value


def error_message(error: SyncdError) -> Message:
    """Return an error as part of a message."""
    if isinstance(error, CrowdedError):
        return {"type": "CrowdedError", "needed": error.needed}
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind in _KINDS.values())
    return {"type": kind, "what": error.what[:_TEXT], "hint": error.hint[:_TEXT]}


def error_of(message: object) -> SyncdError:
    """Return the error that a part of a message is; raise NonsenseError when it is none."""
    if not isinstance(message, dict):
        raise NonsenseError("an error is no object")
    name = text(message, "type")
    if name == "CrowdedError":
        return CrowdedError(number(message, "needed"))
    kind = _KINDS.get(name)
    if kind is None:
        raise NonsenseError("an error is of no known type")
    return kind(text(message, "what"), text(message, "hint"))


def _below(kind: type[SyncdError]) -> Iterator[type[SyncdError]]:
    """Yield a kind of error, and those kinds below it in `syncd.errors` that two sentences make."""
    if kind.__init__ in (SyncdError.__init__, RegistryUnavailableError.__init__):
        yield kind
    for below in kind.__subclasses__():
        if below.__module__ == SyncdError.__module__:
            yield from _below(below)


LASTING = (ImageError, StorageError, RegistryError)
"""The errors of an image and its layers, which keep their kinds on the way."""
_KINDS = {kind.__name__: kind for root in LASTING for kind in _below(root)}
_KINDS |= {"SyncdError": SyncdError, "NoProcessError": NoProcessError}
