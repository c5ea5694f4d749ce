"""The bytes of one blob through one connection, and why a connection broke.

A connection counts as broken, too, when it brings bytes more slowly than a bound: a peer that drips
would hold its reader for days.  Only the time in which bytes are waited for counts, never the time
that the reader takes for them.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Pulling blobs"
"""

from __future__ import annotations

import time
from collections.abc import Callable

import requests
import urllib3.exceptions

from syncd.errors import BrokenStreamError, SlowStreamError

WINDOW = 30.0
"""Seconds of waiting after each of which the rate is looked at."""
REASON_MAX = 300
"""Characters of what a peer sent that an error quotes."""
_AT_ONCE = 0.2  # seconds after which a read returns what has come
_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class BlobStream:
    """A blob's bytes through one connection, `left` of them; a fault of it is BrokenStreamError.

    `redacted` strikes secrets from the fault, which may quote what the registry sent.  `slowest`
    is the bound of the rate in bytes a second; 0 is no bound.  `received` hears how many bytes
    came.
    """

    def __init__(
        self,
        answer: requests.Response,
        left: int,
        redacted: Callable[[str], str] = str,
        *,
        slowest: int = 0,
        received: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._answer = answer
        self.left = left
        self._redacted = redacted
        self._slowest = slowest
        self._received = received
        self._waited = 0.0
        self._came = 0
        self._fault: Exception | None = None

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, none once all are read.

        Return before `size` bytes are there when they do not come at once.  Raise SlowStreamError
        for a stream that is too slow, BrokenStreamError for any other fault.
        """
        if self.left <= 0:
            return b""
        began = time.monotonic()
        parts: list[bytes] = []
        got = 0
        while got < size and self._fault is None and time.monotonic() - began < _AT_ONCE:
            try:
                part: bytes = self._answer.raw.read1(size - got, decode_content=False)
            except _FAULTS as exc:
                self._fault = exc
                break
            if not part:
                break
            parts.append(part)
            got += len(part)
        if not got:
            if self._fault is not None:
                raise BrokenStreamError(
                    self._redacted(cause_of(self._fault))[:REASON_MAX]
                ) from self._fault
            raise BrokenStreamError("the stream ended early")
        self.left -= got
        self._received(got)
        self._look_at_rate(got, time.monotonic() - began)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of the connection."""
        self._answer.close()

    def _look_at_rate(self, came: int, waited: float) -> None:
        """Count the bytes that came; raise SlowStreamError at the end of a window of too few."""
        self._came += came
        self._waited += waited
        if self._waited < WINDOW:
            return
        if self._came < self._slowest * self._waited and self.left > 0:
            raise SlowStreamError(
                f"only {self._came} bytes came in {self._waited:.0f} s",
                "if the registry is so slow, lower limits.slowest in the configuration",
            )
        self._came, self._waited = 0, 0.0


def starts_at(answer: requests.Response, offset: int) -> bool:
    """Tell whether a partial answer's first byte is the one at `offset` (RFC 9110, 14.4)."""
    return bool(answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"))


def is_range(answer: requests.Response, offset: int, size: int) -> bool:
    """Tell whether an answer is these very bytes (RFC 9110, 15.3.7 and 14.4)."""
    said = answer.headers.get("Content-Range", "")
    return answer.status_code == 206 and said.startswith(f"bytes {offset}-{offset + size - 1}/")


def cause_of(exc: BaseException) -> str:
    """Return the reason: requests wraps it three times, and a time-out is its own reason."""
    while True:
        inner = exc.__cause__ or exc.__context__
        if inner is None or isinstance(exc, TimeoutError):
            return f"{exc}" or type(exc).__name__
        exc = inner
