"""Members of a tar archive, and the bytes of their headers.

Pure.  `encode_header` writes what every tar reads: ustar, and PAX records where ustar has no room;
equal members always give equal bytes.  `syncd.tar.reader` is the reading counterpart.

Source: POSIX.1-2017 pax(1), "pax Interchange Format" and "ustar Interchange Format".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import adler32

BLOCK = 512

FILE = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s")
"""name, mode, uid, gid, size, mtime, checksum, type, target, magic, version, user, group, major,
minor, prefix."""
XATTR = b"SCHILY.xattr."
"""What GNU tar and star put before an extended attribute's name to make a PAX record of it."""
ACCESS_ACL = b"SCHILY.acl.access"
DEFAULT_ACL = b"SCHILY.acl.default"
"""The PAX records of access control lists that GNU tar restores."""


NO_XATTRS: Mapping[bytes, bytes] = {}
"""The attributes of a member without any: one for all, since most members have none."""


@dataclass(slots=True)
class Member:
    """One member of a layer.

    `mtime` is in nanoseconds since the epoch.  A file's content is `size` bytes: its `extents`
    (offset in the file, length, offset in the tar or where it was put instead), and zeros wherever
    no extent lies.  Or its content is in the `frames` of these names, one behind the other.
    `access_acl` and `default_acl` are texts as `syncd.tar.acl` writes them; no link has one.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: NO_XATTRS)
    extents: tuple[tuple[int, int, int], ...] = ()
    frames: Sequence[bytes] = ()
    access_acl: bytes = b""
    default_acl: bytes = b""


def is_whole(member: Member) -> bool:
    """Tell whether a member's content, if it has any, is one stretch without a hole."""
    stretches = [(offset, size) for offset, size, _ in member.extents]
    return stretches == ([(0, member.size)] if member.size else [])


def weight(member: Member) -> int:
    """Return about how many bytes of memory a member takes beside `MEMBER`."""
    held = len(member.name) + len(member.target) + _EXTENT * len(member.extents)
    held += len(member.access_acl) + len(member.default_acl)
    held += _ITEMS if member.xattrs else 0
    for key, value in member.xattrs.items():
        held += len(key) + len(value) + ITEM
    return held


MEMBER = 400
"""Bytes of memory that a member takes without its name and what `weight` counts: the member itself,
its numbers, its place in lists and in its directory, and what `overlay` needs meanwhile.  Measured
with tracemalloc (CPython 3.11, 64 bits): 240 for the member, 90 to 130 for its place, and a tenth
that the allocator wastes."""

ITEM = 100
"""Bytes of memory that a key takes beside itself and its value, about."""
_ITEMS = 160
_EXTENT = 170


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of `size` bytes of content."""
    return bytes(-size % BLOCK)


END_OF_ARCHIVE = bytes(2 * BLOCK)


def encode_header(member: Member) -> bytes:
    """Write a member's header: ustar, preceded by a PAX header for what ustar cannot hold.

    The result depends on the member only.  Names go into PAX records byte for byte, UTF-8 or
    not: that is what GNU tar writes and reads (its `hdrcharset` support is nil).
    """
    seconds, fraction = divmod(member.mtime, 10**9)
    records: list[tuple[bytes, bytes]] = []
    if len(member.name) > 100:
        records.append((b"path", member.name))
    if len(member.target) > 100:
        records.append((b"linkpath", member.target))
    for key, value, largest in (
        (b"uid", member.uid, 0o7777777),
        (b"gid", member.gid, 0o7777777),
        (b"size", member.size, 0o77777777777),
    ):
        if value > largest:
            records.append((key, b"%d" % value))
    if fraction or not 0 <= seconds <= 0o77777777777:
        records.append((b"mtime", _time_text(member.mtime)))
    records += [(XATTR + key, value) for key, value in member.xattrs.items()]
    acls = (ACCESS_ACL, member.access_acl), (DEFAULT_ACL, member.default_acl)
    records += [(key, value) for key, value in acls if value]
    block = _ustar_block(member, min(max(seconds, 0), 0o77777777777))
    if not records:
        return block
    payload = b"".join(_record(key, value) for key, value in records)
    extended = Member(b"././@PaxHeader", b"x", 0, 0, 0, 0, len(payload))
    return b"".join((_ustar_block(extended, 0), payload, padding(len(payload)), block))


def _ustar_block(member: Member, seconds: int) -> bytes:
    major, minor = member.device
    block = FIELDS.pack(
        member.name[:100],
        _octal(7, member.mode),
        _octal(7, member.uid if member.uid <= 0o7777777 else 0),
        _octal(7, member.gid if member.gid <= 0o7777777 else 0),
        _octal(11, member.size if member.size <= 0o77777777777 else 0),
        _octal(11, seconds),
        b" " * 8,
        member.kind,
        member.target[:100],
        b"ustar\0",
        b"00",
        b"",
        b"",
        _octal(7, major),
        _octal(7, minor),
        b"",
    )
    return b"%b%06o\0 %b%b" % (block[:148], total(block), block[156:], _REST)


_REST = bytes(BLOCK - FIELDS.size)


@lru_cache(4096)
def _octal(digits: int, value: int) -> bytes:
    """Write a numeric field; most fields of an archive recur."""
    return b"%0*o\0" % (digits, value)


def total(block: bytes | bytearray) -> int:
    """Return the sum of a block's bytes, from which its checksum is made.

    By Adler-32, the only C code at hand that adds bytes up: its lower half is the sum and one,
    modulo 65521 (RFC 1950, section 2.2), which half a block does not reach.
    """
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _record(key: bytes, value: bytes) -> bytes:
    """Write one PAX record, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _time_text(nanoseconds: int) -> bytes:
    """Write nanoseconds as PAX seconds, without trailing zeros."""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    sign = "-" if nanoseconds < 0 else ""
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{sign}{seconds}{digits}".encode()


def quote(name: bytes) -> str:
    """Return a name of any bytes as text fit for a message."""
    return repr(name[:200].decode("utf-8", "backslashreplace"))
