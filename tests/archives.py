"""Tar archives made for tests, member by member, as bytes.

Written by Python's tarfile, and block by block where tarfile cannot: never by syncd's own writer,
so that a fault in it cannot hide itself.  Names are text or any bytes; times are nanoseconds.
"""

from __future__ import annotations

import os
import struct
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Name = str | bytes

MTIME = 1_600_000_000_000_000_000
"""When a member was modified unless a test says otherwise, in nanoseconds since the epoch."""
END = bytes(1024)
"""The end-of-archive marker."""


def tar(*members: bytes, end: bytes = END) -> bytes:
    """Return the archive of these members."""
    return b"".join(members) + end


def file(name: Name, content: bytes = b"", **fields: Any) -> bytes:
    """Return a regular file; `fields` are those of `member`."""
    return member(name, tarfile.REGTYPE, content=content, **fields)


def directory(name: Name, *, mode: int = 0o755, **fields: Any) -> bytes:
    """Return a directory."""
    return member(name, tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: Name, target: Name, *, mode: int = 0o777, **fields: Any) -> bytes:
    """Return a symbolic link."""
    return member(name, tarfile.SYMTYPE, target=target, mode=mode, **fields)


def hardlink(name: Name, target: Name, **fields: Any) -> bytes:
    """Return a hard link to the member `target`."""
    return member(name, tarfile.LNKTYPE, target=target, **fields)


def whiteout(name: Name, **fields: Any) -> bytes:
    """Return the marker that hides what lower layers have at `name`."""
    folder, _, last = os.fsencode(name).rpartition(b"/")
    return file((folder + b"/" if folder else b"") + b".wh." + last, **fields)


def opaque(folder: Name, **fields: Any) -> bytes:
    """Return the marker that hides all that lower layers have in `folder`."""
    return file((os.fsencode(folder) + b"/" if folder else b"") + b".wh..wh..opq", **fields)


def member(
    name: Name,
    kind: bytes,
    *,
    content: bytes = b"",
    size: int | None = None,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    target: Name = "",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[str, bytes] | None = None,
    records: Mapping[str, str] | None = None,
    form: Literal[0, 1, 2] = tarfile.PAX_FORMAT,
) -> bytes:
    """Return a member: its headers and its padded content.

    `size` is said instead of the content's.  `records` go into its PAX header as they are.
    `form` is one of tarfile's formats; GNU_FORMAT writes numbers in base 256 and long names
    in members of their own.
    """
    info = tarfile.TarInfo(os.fsdecode(name))
    info.type, info.mode, info.uid, info.gid = kind, mode, uid, gid
    info.linkname = os.fsdecode(target)
    info.devmajor, info.devminor = device
    info.size = len(content) if size is None else size
    info.mtime = mtime // 10**9
    info.pax_headers = {
        **({} if mtime >= 0 and mtime % 10**9 == 0 else {"mtime": time_text(mtime)}),
        **{f"SCHILY.xattr.{key}": os.fsdecode(value) for key, value in (xattrs or {}).items()},
        **(records or {}),
    }
    return info.tobuf(form, "utf-8", "surrogateescape") + padded(content)


def time_text(nanoseconds: int) -> str:
    """Return a time as PAX records write it: seconds with a fraction."""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    return f"{'-' if nanoseconds < 0 else ''}{seconds}.{fraction:09}"


def padded(content: bytes) -> bytes:
    """Return content filled up to whole blocks."""
    return content + bytes(-len(content) % 512)


def block(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    target: bytes = b"",
    magic: bytes = b"ustar\00000",
    rest: bytes = b"",
    signed: bool = False,
) -> bytes:
    """Return one header block, every field as given; `rest` is what follows the magic.

    `signed` sums the checksum as some historic tars did, over signed characters.
    """
    if isinstance(size, int):
        size = b"%011o\0" % size
    fields = struct.pack(
        "100s8s8s8s12s12s8sc100s8s247s",
        name, mode, uid, gid, size, mtime, b" " * 8, kind, target, magic, rest,
    )  # fmt: skip
    total = sum(fields) - (256 * sum(byte > 127 for byte in fields) if signed else 0)
    return fields[:148] + b"%06o\0 " % total + fields[156:]


def extended(
    records: Mapping[str, bytes] | Sequence[tuple[str, bytes]], kind: bytes = b"x"
) -> bytes:
    """Return a PAX header for the member that follows it, or of kind `g` for all that follow."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return raw_extended(b"".join(_record(key.encode(), value) for key, value in pairs), kind)


def raw_extended(payload: bytes, kind: bytes = b"x") -> bytes:
    """Return a PAX header of this very payload."""
    return block(b"PaxHeader", kind, size=len(payload)) + padded(payload)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d%b" % (length, rest)


def resealed(plain: bytes) -> bytes:
    """Return a tar whose header blocks have right checksums again, so that readers go on."""
    blocks = [plain[at : at + 512] for at in range(0, len(plain), 512)]
    for place, block in enumerate(blocks):
        if b"ustar" in block[250:270] and len(block) == 512:
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            blocks[place] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)
