"""PAX records: the `length key=value` lines that extend a tar header.

Pure.  Nothing is guessed: a record that is not well formed is an ImageError.

Source: POSIX.1-2017 pax(1), "pax Extended Header".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from syncd.errors import ImageError
from syncd.tar import acl
from syncd.tar.member import NO_XATTRS, XATTR

_KEPT_XATTRS = re.compile(rb"user\..+|security\.capability", re.DOTALL)
_SPARSE = frozenset(
    b"GNU.sparse." + name
    for name in (b"major", b"minor", b"name", b"realsize", b"size", b"numblocks", b"map")
)
_ACLS = frozenset(record for records in acl.RECORDS.values() for record in records)
_KEPT = _SPARSE | _ACLS | {b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"}
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")


def records(payload: bytes, start: int) -> dict[bytes, bytes]:
    """Read the `length key=value` records of a PAX header; of equal keys the last counts.

    Those that a template has no use for are left out: a global header could lay any number of them
    on every member.  The repeated offset and numbytes of sparse format 0.0 become the map of 0.1.
    """
    found: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(payload):
        digits, space, _ = payload[at : at + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = payload[at + len(digits) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(payload) or not record.endswith(b"\n") or not equals or not key:
            raise ImageError(f"the PAX header at byte {start} has a malformed record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        elif key in _KEPT or _kept_xattr(key):
            found[key] = value
        at += length
    if sparse:
        found[b"GNU.sparse.map"] = b",".join(sparse)
    return found


def has_acl(records: Mapping[bytes, bytes]) -> bool:
    """Tell whether the records hold an access control list, in whichever form."""
    return not _ACLS.isdisjoint(records)


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Tell whether the records describe a sparse file."""
    return any(key in records for key in _SPARSE)


def xattrs(records: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Return the extended attributes that a template keeps, in one order."""
    found = {key.removeprefix(XATTR): records[key] for key in sorted(records) if _kept_xattr(key)}
    return found or NO_XATTRS


def _kept_xattr(key: bytes) -> bool:
    return key.startswith(XATTR) and _KEPT_XATTRS.fullmatch(key, len(XATTR)) is not None


def time(text: bytes) -> int:
    """Read a PAX time in seconds with any fraction; return nanoseconds, rounded down."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ImageError(f"{text[:40]!r} is not a PAX time")
    sign, seconds, fraction = match[1], int(match[2]), match[3] or b""
    nanoseconds = seconds * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds - bool(fraction[9:].strip(b"0")) if sign else nanoseconds


def decimal(records: Mapping[bytes, bytes], key: bytes, otherwise: int) -> int:
    """Return a PAX record's number; an empty record withdraws itself (POSIX)."""
    text = records.get(key)
    return number(text) if text else otherwise


def number(text: bytes) -> int:
    """Read a decimal number; raise ImageError when it is none."""
    if not text.isdigit() or len(text) > 20:
        raise ImageError(f"{text[:40]!r} is not a decimal number")
    return int(text)
