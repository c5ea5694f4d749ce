"""What `pax` promises: well-formed records, or an error."""

from __future__ import annotations

import pytest

from syncd.errors import ImageError
from syncd.tar import pax


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"", {}),
        (b"9 uid=10\n", {b"uid": b"10"}),
        (b"7 uid=\n", {b"uid": b""}),
        (b"14 path=b=c=d\n", {b"path": b"b=c=d"}),
        (b"13 path=1\n2\0\n", {b"path": b"1\n2\0"}),
        (b"8 uid=1\n8 gid=2\n8 uid=3\n", {b"uid": b"3", b"gid": b"2"}),
    ],
)
def test_records(payload: bytes, found: dict[bytes, bytes]) -> None:
    """Records may hold any bytes; of equal keys the last counts."""
    assert pax.records(payload, 0) == found


def test_records_without_use() -> None:
    """What a template has no use for is read past, however much it is."""
    payload = b"".join(_record(b"comment.%d" % nth, b"x") for nth in range(1000))
    payload += _record(b"SCHILY.xattr.trusted.a", b"1")
    payload += _record(b"SCHILY.xattr.user.a", b"2")
    assert pax.records(payload, 0) == {b"SCHILY.xattr.user.a": b"2"}


def _record(key: bytes, value: bytes) -> bytes:
    """Return a record whose length has two digits."""
    return b"%d %b=%b\n" % (len(key) + len(value) + 5, key, value)


@pytest.mark.parametrize(
    "payload",
    [
        b"a=1\n",
        b"6a=1\n",
        b"5 a=1\n",
        b"8 a=1\n",
        b"6 a=1\n\0",
        b" 6 a=1\n",
        b"+6 a=1\n",
        b"6\n",
        b"6 =12\n",
    ],
)
def test_malformed(payload: bytes) -> None:
    """A record whose length, key or end is wrong is refused with its place."""
    with pytest.raises(ImageError, match="byte 512 has a malformed record"):
        pax.records(payload, 512)


def test_sparse_map() -> None:
    """The pairs of sparse format 0.0 become the map of format 0.1."""
    payload = b"".join(
        b"%d %b=%d\n" % (len(key) + 7, key, value)
        for key, value in [
            (b"GNU.sparse.offset", 10),
            (b"GNU.sparse.numbytes", 20),
            (b"GNU.sparse.offset", 30),
            (b"GNU.sparse.numbytes", 40),
        ]
    )
    assert pax.records(payload, 0)[b"GNU.sparse.map"] == b"10,20,30,40"


@pytest.mark.parametrize("text", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1" * 21])
def test_bad_number(text: bytes) -> None:
    """Only decimal digits are a number."""
    with pytest.raises(ImageError, match="decimal"):
        pax.number(text)
