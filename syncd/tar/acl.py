"""POSIX access control lists: read in each form that archives have them in, written in one.

GNU tar, star and libarchive write the text of acl(5) into records `SCHILY.acl.access` and
`SCHILY.acl.default`; Go's tools and others copy the kernel's binary attributes
`system.posix_acl_access` and `system.posix_acl_default`.  Here each becomes the one text that GNU
tar restores: entries in the kernel's order, one a line, ids as numbers.

Pure.  What is not an ACL at all is an ImageError; an ACL that no file system takes, or that names
users by name, is read, and `fault` says why a template cannot have it.

Sources: acl(5), "ACL TEXT FORMS"; linux/posix_acl_xattr.h; star(5), "SCHILY.acl.access".
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from syncd.errors import ImageError
from syncd.tar.member import ACCESS_ACL, DEFAULT_ACL, quote

RECORDS: Mapping[bytes, tuple[bytes, ...]] = {
    text: (
        b"SCHILY.xattr.system.posix_acl_" + kind,
        b"LIBARCHIVE.xattr.system.posix_acl_" + kind,
        text,
    )
    for text, kind in ((ACCESS_ACL, b"access"), (DEFAULT_ACL, b"default"))
}
"""The records that an ACL may stand in; the first that is there counts, and a binary form comes
before a text, since it has no names."""

_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32  # linux/posix_acl.h
_TAGS = {b"user": _USER_OBJ, b"group": _GROUP_OBJ, b"mask": _MASK, b"other": _OTHER}
_NAMED = {_USER_OBJ: _USER, _GROUP_OBJ: _GROUP}
_WORDS = {_USER_OBJ: b"user", _USER: b"user", _GROUP_OBJ: b"group", _GROUP: b"group",
          _MASK: b"mask", _OTHER: b"other"}  # fmt: skip
_VERSION = struct.Struct("<I")  # struct posix_acl_xattr_header
_ENTRY = struct.Struct("<HHI")  # struct posix_acl_xattr_entry
_NOBODY = 0xFFFFFFFF  # ACL_UNDEFINED_ID: the id of an entry that has none
_LARGEST = 64 << 10  # bytes of an attribute: XATTR_SIZE_MAX, linux/limits.h
_LARGEST_TEXT = 4 * _LARGEST  # an entry takes eight bytes there, and some thirty here
_PERMISSIONS = re.compile(rb"[rwx-]{0,3}")


class Entry(NamedTuple):
    """One entry: a tag of linux/posix_acl.h, whom it is for, and permissions as bits of a mode.

    `who` is an id, a name, or -1 for the entries that need neither.
    """

    tag: int
    who: int | bytes
    permissions: int


def read(records: Mapping[bytes, bytes], key: bytes, name: bytes) -> bytes:
    """Return the ACL that the records of the member `name` hold for `key`, as text.

    `key` is ACCESS_ACL or DEFAULT_ACL.  Return nothing where there is none; raise ImageError for
    what is not an ACL.
    """
    for record in RECORDS[key]:
        value = records.get(record)
        if value:
            try:
                if record == key:
                    text = _from_text(value)
                else:
                    text = _from_binary(value, in_base64=record.startswith(b"LIBARCHIVE."))
                if text and key == ACCESS_ACL:
                    group_permissions(text)
            except ValueError as exc:
                raise ImageError(
                    f"the record {record.decode()} of {quote(name)} is not an ACL: {exc}",
                    "write the layer again with a current tool",
                ) from None
            return text
    return b""


def numeric_ids(text: bytes) -> list[int]:
    """Return the ids of users and groups in an ACL that `read` returned."""
    return [entry.who for entry in _entries(text) if isinstance(entry.who, int) and entry.who >= 0]


@lru_cache(64)
def fault(text: bytes) -> str:
    """Say why no template can have an ACL that `read` returned; return an empty string if it can.

    Names mean nothing outside the machine where the layer was written.  For the rest see acl(5),
    "VALID ACLS".
    """
    entries = _entries(text)
    names = [entry.who for entry in entries if isinstance(entry.who, bytes)]
    if names:
        return f"it has the name {names[0][:40].decode('utf-8', 'backslashreplace')!r}, not an id"
    tags = [entry.tag for entry in entries]
    if [tags.count(tag) for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)] != [1, 1, 1]:
        return "it does not have one entry each for owner, group and others"
    if len({entry[:2] for entry in entries}) < len(entries):
        return "it has two entries for one id"
    if _MASK not in tags and {_USER, _GROUP} & set(tags):
        return "it has no mask"
    return ""


def with_ids(text: bytes, users: Mapping[bytes, int], groups: Mapping[bytes, int]) -> bytes:
    """Return an ACL that `read` returned with the ids of those names that have one."""
    entries = []
    for entry in _entries(text):
        who = entry.who
        if isinstance(who, bytes):
            who = (users if entry.tag == _USER else groups).get(who, who)
        entries.append(entry._replace(who=who))
    return _written(entries)


def class_permissions(text: bytes) -> int:
    """Return the group bits of the mode of a file that has this access ACL: the mask, if any."""
    permissions = {entry.tag: entry.permissions for entry in _entries(text)}
    return permissions.get(_MASK, permissions[_GROUP_OBJ])


@lru_cache(64)
def group_permissions(text: bytes) -> int:
    """Return what an access ACL lets the file's own group do, as three bits of a mode.

    A mode's group bits are the mask where there is one (acl(5), "CORRESPONDENCE BETWEEN ACL ENTRIES
    AND FILE PERMISSION BITS"), so without the ACL they would give the group what others were given.
    Raise ValueError for an ACL without an entry for the group; `read` returned none.
    """
    allowed = 0o7
    entries = _entries(text)
    if _GROUP_OBJ not in (entry.tag for entry in entries):
        raise ValueError("it has no entry for the group")
    for tag, _, permissions in entries:
        if tag in (_GROUP_OBJ, _MASK):
            allowed &= permissions
    return allowed


@lru_cache(64)
def _from_text(text: bytes) -> bytes:
    """Return the text of an ACL in its one form; a global header gives many members the same."""
    if len(text) > _LARGEST_TEXT:
        raise ValueError(f"it has {len(text)} bytes")
    entries = []
    for line in re.split(rb"[,\n]", text):
        words = line.partition(b"#")[0].strip()
        if words:
            entries.append(_entry([word.strip() for word in words.split(b":")]))
    return _written(entries)


def _entry(fields: list[bytes]) -> Entry:
    """Read an entry: `tag:who:permissions`, and in star's form an id behind that.

    The entries of mask and others may leave out their empty field.  Raise ValueError.
    """
    matches = [tag for word, tag in _TAGS.items() if fields[0] in (word, word[:1])]
    if matches and matches[0] in (_MASK, _OTHER) and len(fields) == 2:
        fields = [fields[0], b"", fields[1]]
    if not matches or not 3 <= len(fields) <= 4 or not _PERMISSIONS.fullmatch(fields[2]):
        raise ValueError(f"it has the entry {b':'.join(fields)[:60]!r}")
    tag, who = matches[0], fields[3] if len(fields) == 4 and fields[3] else fields[1]
    permissions = sum(bit for char, bit in zip(b"rwx", (4, 2, 1), strict=True) if char in fields[2])
    if not fields[1]:
        return Entry(tag, -1, permissions)
    if tag not in _NAMED:
        raise ValueError(f"it has the entry {b':'.join(fields)[:60]!r}")
    if not who.isdigit():
        return Entry(_NAMED[tag], who, permissions)
    return Entry(_NAMED[tag], _checked(int(who[:20])), permissions)


@lru_cache(64)
def _from_binary(value: bytes, *, in_base64: bool) -> bytes:
    """Return the text of an ACL in the kernel's form, little-endian on every machine."""
    if in_base64:
        value = b64decode(value + b"=" * (-len(value) % 4), validate=True)
    size = len(value) - _VERSION.size
    if size < 0 or size % _ENTRY.size or size > _LARGEST:
        raise ValueError(f"it has {len(value)} bytes")
    if _VERSION.unpack_from(value)[0] != 2:
        raise ValueError(f"it is of version {_VERSION.unpack_from(value)[0]}")
    entries = []
    for tag, permissions, who in _ENTRY.iter_unpack(value[_VERSION.size :]):
        if tag not in _WORDS or permissions > 0o7:
            raise ValueError(f"it has an entry of tag {tag} and permissions {permissions}")
        named = tag in _NAMED.values()
        entries.append(Entry(tag, _checked(who) if named else -1, permissions))
    return _written(entries)


def _checked(who: int) -> int:
    if who >= _NOBODY:
        raise ValueError(f"it has the id {who}")
    return who


def _written(entries: Iterable[Entry]) -> bytes:
    """Write entries in the kernel's order: by tag, then by id."""
    lines = []
    for tag, who, permissions in sorted(entries, key=_order):
        bits = bytes(
            char if permissions & bit else ord("-")
            for char, bit in zip(b"rwx", (4, 2, 1), strict=True)
        )
        name = who if isinstance(who, bytes) else b"" if who < 0 else b"%d" % who
        lines.append(b"%b:%b:%b\n" % (_WORDS[tag], name, bits))
    return b"".join(lines)


def _order(entry: Entry) -> tuple[int, int, bytes]:
    """Return what entries are sorted by; names come behind the ids."""
    tag, who, _ = entry
    return (tag, _NOBODY, who) if isinstance(who, bytes) else (tag, who, b"")


@lru_cache(64)
def _entries(text: bytes) -> tuple[Entry, ...]:
    """Return the entries of a text that `read` returned."""
    return tuple(_entry(line.split(b":")) for line in text.split(b"\n") if line)
