"""What `oci.registry.byteranges` promises: the ranges that were asked for, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from syncd.config.settings import RegistrySettings
from syncd.errors import (
    BrokenStreamError,
    DeniedError,
    NoRangesError,
    NotFoundError,
    OneRangeError,
    RegistryError,
    RegistryUnavailableError,
)
from syncd.oci.access import AnonymousAccess
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.range_reader import Range
from syncd.oci.reference import Digest
from syncd.oci.registry import byteranges
from syncd.oci.registry.auth import Logins
from syncd.oci.registry.byteranges import HEAD_MAX
from syncd.oci.registry.client import Registry
from syncd.oci.registry.stream import BlobStream
from tests.fakes.registry import Faults
from tests.fakes.registry import Registry as Fake
from tests.fakes.registry_rules import BOUNDARY
from tests.oci.test_registry import BASE, BLOB, IMAGE, REPOSITORY, Waits, latest

RANGES = [Range(0, 10), Range(100, 1), Range(101, 2000), Range(BLOB.size - 7, 7)]
WANTED = b"".join(BASE.stored[offset : offset + size] for offset, size in RANGES)


def door(fake: Fake, logins: Logins | None = None) -> Registry:
    settings = RegistrySettings(host=fake.address, plain_http=True)
    return Registry(latest(fake), settings, pause=Waits(), logins=logins)


def read(reader: Reader, size: int = 999) -> bytes:
    content = b""
    while data := reader.read(size):
        assert len(data) <= size
        content += data
    reader.close()
    return content


@pytest.fixture
def pushed(registry: Fake) -> Fake:
    registry.push(REPOSITORY, "latest", IMAGE)
    return registry


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_several_ranges(pushed: Fake, size: int) -> None:
    """Several ranges are one request, and their bytes come one behind the other."""
    assert read(door(pushed).ranges(BLOB, RANGES), size) == WANTED
    end = BLOB.size - 1
    assert pushed.ranges == [f"bytes=0-9,100-100,101-2100,{end - 6}-{end}"]


def test_one_range(pushed: Fake) -> None:
    """One range is asked for as one, whatever is known of several."""
    client = door(pushed)
    pushed.faults.several = 200
    with pytest.raises(OneRangeError):
        client.ranges(BLOB, RANGES)
    assert read(client.ranges(BLOB, RANGES[2:3])) == BASE.stored[101:2101]


@pytest.mark.parametrize(
    "media_type",
    [
        f'multipart/byteranges; boundary="{BOUNDARY}"',
        f"Multipart/ByteRanges;boundary={BOUNDARY}",
        f"multipart/byteranges; charset=x; boundary={BOUNDARY} ; more=y",
    ],
)
def test_media_types(pushed: Fake, media_type: str) -> None:
    """The boundary is found however the media type is written."""
    pushed.faults.multipart = media_type
    assert read(door(pushed).ranges(BLOB, RANGES)) == WANTED


MANGLED: dict[str, Callable[[bytes], bytes]] = {
    "preamble": lambda body: b"\r\n" + body,
    "padded": lambda body: body.replace(f"--{BOUNDARY}\r".encode(), f"--{BOUNDARY} \t\r".encode()),
    "small letters": lambda body: body.replace(b"Content-Range: bytes", b"content-range:bytes"),
    "unknown size": lambda body: body.replace(b"/%d\r" % BLOB.size, b"/*\r"),
    "no end": lambda body: body.removesuffix(f"--{BOUNDARY}--\r\n".encode()),
}


@pytest.mark.parametrize("mangled", MANGLED)
def test_other_spellings(pushed: Fake, mangled: str) -> None:
    """What RFC 2046 and RFC 9110 leave to a server makes no difference."""
    pushed.faults.mangled = MANGLED[mangled]
    assert read(door(pushed).ranges(BLOB, RANGES)) == WANTED


def faults(**fields: object) -> Callable[[Faults], None]:
    def begin(faults: Faults) -> None:
        for name, value in fields.items():
            setattr(faults, name, value)

    return begin


def replacing(old: bytes, new: bytes) -> Callable[[Faults], None]:
    return faults(mangled=lambda body: body.replace(old, new))


OTHERS: dict[str, Callable[[Faults], None]] = {
    "whole": faults(several=200),
    "first": faults(several=206),
    "bad request": faults(several=400),
    "not satisfiable": faults(several=416),
    "no ranges": faults(ranges=False),
    "another order": faults(answered=lambda ranges: ranges[::-1]),
    "joined": faults(answered=lambda ranges: [ranges[0], (100, 2100), ranges[3]]),
    "fewer": faults(answered=lambda ranges: ranges[:2]),
    "none": faults(answered=lambda ranges: []),
    "others": faults(answered=lambda ranges: [(first + 1, last + 1) for first, last in ranges[:3]]),
    "no boundary": faults(multipart="multipart/byteranges"),
    "another boundary": faults(multipart="multipart/byteranges; boundary=other"),
    "long type": faults(multipart=f"multipart/byteranges;{' ' * 256}boundary={BOUNDARY}"),
    "long boundary": faults(multipart=f"multipart/byteranges; boundary={'b' * 71}"),
    "another type": faults(multipart="application/octet-stream"),
    "another size": replacing(b"/%d\r" % BLOB.size, b"/%d\r" % (BLOB.size + 1)),
    "another unit": replacing(b"bytes 100", b"items 100"),
    "no range": replacing(b"Content-Range", b"Content-Rage"),
    "two ranges": replacing(b"Content-Type", b"Content-Range: bytes 0-9/*\r\nContent-Type"),
    "long head": replacing(b"Content-Type", b"X: " + b"x" * HEAD_MAX + b"\r\nContent-Type"),
    "endless head": replacing(b"\r\n\r\n", b"\r\nX: x"),
    "text": faults(mangled=lambda body: b"<html>" + body),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_answers(pushed: Fake, other: str) -> None:
    """Any other answer ends the asking for several ranges for a while, whichever object asks."""
    OTHERS[other](pushed.faults)
    logins = Logins()
    with pytest.raises(OneRangeError, match="does not serve several ranges"):
        read(door(pushed, logins).ranges(BLOB, RANGES))
    asked = len(pushed.ranges)
    with pytest.raises(OneRangeError, match="did not serve several ranges"):
        door(pushed, logins).ranges(BLOB, RANGES)
    assert len(pushed.ranges) == asked


def test_endless_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a head that does not end little is read, however much would come."""

    class Endless:
        given = 0

        def read(self, size: int, /) -> bytes:
            self.given += size
            return b"x" * size * (self.given < 1 << 20)

        def close(self) -> None:
            """Close nothing."""

    body = Endless()
    login = Logins().of(AnonymousAccess("ghcr.io"), "ghcr.io", "a/b")
    large = [Range(0, 1 << 30), Range(1 << 31, 1 << 30)]
    reader = byteranges.ByteRanges(cast(BlobStream, body), b"b", 1 << 40, large, login)
    with pytest.raises(OneRangeError):
        reader.read(10)
    assert body.given <= 32 << 10


def test_after_a_while(pushed: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server did not answer once, it may answer later."""
    monkeypatch.setattr(byteranges, "ONE_BY_ONE", 0.0)
    client = door(pushed)
    pushed.faults.several = 200
    with pytest.raises(OneRangeError):
        client.ranges(BLOB, RANGES)
    pushed.faults.several = None
    assert read(client.ranges(BLOB, RANGES)) == WANTED


@pytest.mark.parametrize("cut", [0, 50, 150, 160, 400, 2000])
def test_broken_off(pushed: Fake, cut: int) -> None:
    """What is cut off within is a stream that broke, which says nothing of several ranges."""
    client = door(pushed)
    pushed.faults.cut_ranges = [cut]
    reader = client.ranges(BLOB, RANGES)
    with pytest.raises(BrokenStreamError):
        read(reader)
    assert read(client.ranges(BLOB, RANGES)) == WANTED


def test_absent_blob(pushed: Fake) -> None:
    """A blob that is not there is not there, however many ranges of it are asked for."""
    client = door(pushed)
    absent = Descriptor(BLOB.media_type, Digest.of(b"absent"), 5000)
    with pytest.raises(NotFoundError):
        client.ranges(absent, RANGES)
    assert read(client.ranges(BLOB, RANGES)) == WANTED


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, DeniedError), (429, RegistryUnavailableError), (503, RegistryUnavailableError)],
)
def test_refusals(pushed: Fake, status: int, error: type[RegistryError]) -> None:
    """A registry that refuses for another reason is not taken for one that lacks several ranges."""
    client = door(pushed)
    pushed.faults.busy_ranges = [(status, {}, b"{}")] * 9
    with pytest.raises(error):
        client.ranges(BLOB, RANGES)
    pushed.faults.busy_ranges = []
    assert read(client.ranges(BLOB, RANGES)) == WANTED


def test_wrong_range(pushed: Fake) -> None:
    """Another range than the one that is asked for is refused."""
    pushed.faults.content_range = f"bytes 5-9/{BLOB.size}"
    with pytest.raises(NoRangesError) as refused:
        door(pushed).ranges(BLOB, RANGES[:1])
    assert not isinstance(refused.value, OneRangeError)
