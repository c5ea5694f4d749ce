"""Several ranges of a blob from one request: `multipart/byteranges`, read as one stream.

A server may answer several ranges as it likes: in another order, joined, as the whole, or not at
all.  Only what was asked for is taken, range by range; any other answer means that this server is
asked for one range a request for an hour.  Nothing of a body is held but the head of one part.

Sources: RFC 9110, sections 14.2, 14.6 and 15.3.7.2; RFC 2046, section 5.1.1.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Sequence

import requests

from syncd.errors import (
    BrokenStreamError,
    NoRangesError,
    NotFoundError,
    OneRangeError,
    RegistryError,
    RegistryUnavailableError,
)
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.range_reader import Range
from syncd.oci.registry.auth import Login
from syncd.oci.registry.stream import BlobStream, is_range

HEAD_MAX = 4 << 10
"""Bytes of the head of a part at most: its delimiter and its headers."""
ONE_BY_ONE = 3600.0
"""Seconds for which a server is not asked for several ranges that did not answer them."""
_READ = 16 << 10  # bytes that are read at a time where the head of a part has to come
_TYPE_MAX = 256  # characters of the media type at most: a longer one takes the pattern long
_SAFE = r"0-9A-Za-z'()+_,\-./:=?"
_BOUNDARY = re.compile(
    r"multipart/byteranges\s*;\s*(?:.*;\s*)?"
    rf'boundary=("?)([{_SAFE} ]{{0,69}}[{_SAFE}])\1\s*(?:;.*)?',
    re.IGNORECASE,
)


def opened(
    wanted: Descriptor,
    ranges: Sequence[Range],
    login: Login,
    ask: Callable[[str], requests.Response],
    stream: Callable[[requests.Response, int], BlobStream],
) -> Reader:
    """Ask for ranges of a blob, and return the stream of their bytes.

    `ask` makes the request with what follows `bytes=`, `stream` reads so many bytes of the answer.
    Raise NoRangesError where a range is not answered, OneRangeError where several are not, and what
    `ask` raises.
    """
    spans = ",".join(f"{offset}-{offset + size - 1}" for offset, size in ranges)
    if len(ranges) == 1:
        answer = ask(spans)
        if not is_range(answer, *ranges[0]):
            answer.close()
            raise NoRangesError(f"{login.host} does not serve ranges of {wanted.digest}")
        return stream(answer, ranges[0].size)
    if time.monotonic() < login.one_by_one_until:
        raise OneRangeError(f"{login.host} did not serve several ranges in one answer")
    try:
        answer = ask(spans)
    except (NotFoundError, RegistryUnavailableError):
        raise
    except RegistryError as exc:
        raise _one_range(login) from exc
    media_type = answer.headers.get("Content-Type", "")
    found = _BOUNDARY.fullmatch(media_type) if len(media_type) <= _TYPE_MAX else None
    if answer.status_code != 206 or found is None:
        answer.close()
        raise _one_range(login)
    most = sum(size for _, size in ranges) + len(ranges) * HEAD_MAX
    return ByteRanges(stream(answer, most), found[2].encode(), wanted.size, ranges, login)


def _one_range(login: Login) -> OneRangeError:
    """Remember that several ranges are not answered; return the error to raise."""
    login.one_by_one_until = time.monotonic() + ONE_BY_ONE
    return OneRangeError(f"{login.host} does not serve several ranges in one answer")


class ByteRanges:
    """The bytes of some ranges, one behind the other, from the body of one answer.

    Raise OneRangeError where the body has other ranges than these, and what `body` raises.
    """

    def __init__(
        self, body: BlobStream, boundary: bytes, size: int, ranges: Sequence[Range], login: Login
    ) -> None:
        self._body = body
        self._delimiter = b"--" + boundary
        self._size = size
        self._coming = deque(ranges)
        self._login = login
        self._came = bytearray()
        self._left = 0  # bytes of the range under way
        self.close = body.close

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, none once all ranges are read."""
        if not self._left:
            if not self._coming:
                return b""
            self._begin(self._coming.popleft())
        wanted = min(size, self._left)
        if self._came:
            data = bytes(self._came[:wanted])
            del self._came[:wanted]
        else:
            data = self._body.read(wanted)
        self._left -= len(data)
        return data

    def _begin(self, following: Range) -> None:
        """Read up to the first byte of a range, which has to be the one that is asked for."""
        while (end := self._came.find(b"\r\n\r\n")) < 0:
            if len(self._came) > HEAD_MAX:
                raise _one_range(self._login)
            try:
                data = self._body.read(_READ)
            except BrokenStreamError as exc:
                if self._delimiter + b"--" in self._came:
                    raise _one_range(self._login) from exc
                raise
            if not data:
                raise _one_range(self._login)
            self._came += data
        delimiter, *headers = bytes(self._came[:end]).lstrip(b"\r\n").split(b"\r\n")
        del self._came[: end + 4]
        said = [
            value.strip().decode("latin-1")
            for name, _, value in (header.partition(b":") for header in headers)
            if name.strip().lower() == b"content-range"
        ]
        offset, size = following
        place = f"bytes {offset}-{offset + size - 1}/"
        if (
            delimiter.rstrip(b" \t") != self._delimiter
            or end > HEAD_MAX
            or said not in ([f"{place}{self._size}"], [f"{place}*"])
        ):
            raise _one_range(self._login)
        self._left = size
