"""Reading tar archives: members from a stream of bytes.

Pure: `Parser` is fed chunks and knows where each member's content lies, without holding the
content.  It reads what images contain in practice: v7, ustar, PAX, GNU and star headers, GNU sparse
files in all four forms.  It never guesses: a damaged, cut or unknown header is an ImageError.

Sources: POSIX.1-2017 pax(1) "pax Interchange Format" and "ustar Interchange Format";
https://www.gnu.org/software/tar/manual/html_node/Standard.html and Sparse-Formats.html.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from syncd.errors import ImageError
from syncd.limits import Allowance, Hold, Limits, unbounded
from syncd.tar import acl, pax
from syncd.tar.header import Header, number
from syncd.tar.member import (
    ACCESS_ACL,
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DEFAULT_ACL,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    ITEM,
    MEMBER,
    SYMLINK,
    Member,
    quote,
    weight,
)

T = TypeVar("T")

_WITHOUT_CONTENT = (HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO)
_GNU_SPARSE = b"S"
_CHARGE = 16 << 10  # bytes of metadata that are charged at a time, since that takes a lock
_CHARGE_MEMBERS = 64  # members that are charged at a time
_MODES = tuple(range(0o10000))  # so that equal modes are one object
_LARGEST = 1 << 60
_ALL_THAT_FOLLOWS = 1 << 62  # bytes: more than any stream holds
_LATEST = (1 << 62) * 10**9
_ZERO_BLOCK = bytes(BLOCK)


@dataclass(slots=True)
class Skip:
    """A request of the walk through an archive: pass over the next `size` bytes."""

    size: int


_Walk: TypeAlias = Generator[int | Skip, bytes, T]
"""A walk through an archive: yields n and is sent the next n bytes, or yields a `Skip`, for which
it is sent nothing."""


class Sink(Protocol):
    """Takes the contents of an archive's members as they go by."""

    def begin(self, member: Member) -> None:
        """Hear that this member's content comes next; it is not empty."""

    def take(self, content: memoryview) -> None:
        """Take the next bytes of the content, as the archive stores it: without holes."""


class Parser:
    """Finds the members of one tar archive that is fed to it in chunks of any size.

    Bytes behind the end-of-archive marker are passed over, as every tar does.  `metadata` is used
    up by what is held of each member; archives that belong together share an allowance.  `sink`,
    if it is not None, is given the contents.  `hold` is told how much memory the members take.
    """

    def __init__(
        self,
        limits: Limits,
        metadata: Allowance | None = None,
        sink: Sink | None = None,
        hold: Hold = unbounded,
    ) -> None:
        self.members: list[Member] = []
        self._sink = sink
        self._content = 0
        self._limits = limits
        self._longest_path = limits.path.maximum
        self._most_members = limits.entries.maximum
        self._metadata = metadata or Allowance(limits.metadata, "the metadata of the archive")
        self._hold = hold
        self._held = 0
        self._counted = 0
        self._position = 0
        self._pending = b""
        self._skip = 0
        self._between_members = True
        self._ended = False
        self._walk = self._read_archive()
        next(self._walk)
        self._need = BLOCK  # an archive begins with a header

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the archive; raise ImageError or LimitError."""
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                if self._content and self._sink is not None:
                    content = min(self._content, step)
                    self._sink.take(view[at : at + content])
                    self._content -= content
                self._skip -= step
                at += step
                continue
            step = self._need - len(self._pending)
            self._pending += view[at : at + step]
            at += step
            if at > end:
                return
            block, self._pending = self._pending, b""
            self._position += self._need
            self._need = self._next(block)

    def pass_over(self) -> int:
        """Return how many of the next bytes are content that need not be fed, and skip them."""
        passed, self._skip = self._skip, 0
        return passed

    def close(self) -> None:
        """Tell the parser that the archive ended; raise ImageError if it was cut, or LimitError."""
        self._charge()
        if self._pending or not self._between_members or (self._skip and not self._ended):
            raise ImageError(f"the tar archive is cut short near byte {self._position}")

    def _next(self, block: bytes) -> int:
        """Go on with the walk, and return how many bytes it needs next."""
        wanted = self._walk.send(block)
        while isinstance(wanted, Skip):
            self._skip += wanted.size
            self._position += wanted.size
            wanted = self._walk.send(b"")
        return wanted

    def _read_archive(self) -> _Walk[None]:
        """Walk through the whole archive, and on."""
        shared: dict[bytes, bytes] = {}
        own: dict[bytes, bytes] = {}
        extended = False
        while True:
            start = self._position
            block = yield BLOCK
            if block == _ZERO_BLOCK:
                if extended:
                    raise ImageError(f"an extended header before byte {start} has no member")
                if (yield BLOCK) != _ZERO_BLOCK:
                    raise ImageError(f"a lone zero block stands at byte {start}")
                break
            self._between_members = False
            header = Header(block, start)
            if header.kind in b"xXgLK":
                self._limits.header.check(header.size, f"the extended header at byte {start}")
                payload = (yield _padded(header.size))[: header.size] if header.size else b""
                if header.kind == b"L":
                    own[b"path"] = payload.split(b"\0", 1)[0]
                elif header.kind == b"K":
                    own[b"linkpath"] = payload.split(b"\0", 1)[0]
                elif header.kind == b"g":
                    new = pax.records(payload, start)
                    size = sum(len(k) + len(v) + ITEM for k, v in new.items())
                    self._metadata.take(size)
                    self._hold(size)
                    shared.update(new)
                else:
                    own.update(pax.records(payload, start))
                extended = extended or header.kind != b"g"
                self._between_members = not extended
                continue
            yield from self._read_member(header, shared | own if shared else own)
            own, extended = {}, False
            self._between_members = True
        self._ended = True
        while True:
            yield Skip(_ALL_THAT_FOLLOWS)
            yield BLOCK

    def _read_member(self, header: Header, records: dict[bytes, bytes]) -> _Walk[None]:
        """Add the member of `header` and of the extended `records` that came before it."""
        name = records.get(b"path") or header.name
        kind = header.kind
        if kind in b"\x007":
            # POSIX: both mean a regular file; in v7 archives a trailing slash makes a folder.
            kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else FILE
        member = Member(
            name,
            kind,
            _MODES[header.mode & 0o7777],
            header.uid,
            header.gid,
            header.mtime * 10**9,
            target=header.target,
            device=header.device if kind in (CHARACTER_DEVICE, BLOCK_DEVICE) else (0, 0),
        )
        stored = header.size
        if records:
            member.uid = pax.decimal(records, b"uid", header.uid)
            member.gid = pax.decimal(records, b"gid", header.gid)
            member.mtime = pax.time(records[b"mtime"]) if records.get(b"mtime") else member.mtime
            member.target = records.get(b"linkpath") or header.target
            member.xattrs = pax.xattrs(records)
            if pax.has_acl(records) and kind not in (SYMLINK, HARD_LINK):
                _read_acls(member, records)
            stored = pax.decimal(records, b"size", header.size)
        if kind in _WITHOUT_CONTENT:
            stored = 0
        elif kind == FILE and not (records and pax.is_sparse(records)):
            member.size = stored
            if stored:
                member.extents = ((0, stored, self._position),)
        else:
            if kind == _GNU_SPARSE:
                member.kind = FILE
                member.size, stretches = yield from self._read_old_sparse_map(header)
            elif kind == FILE:
                mapped = yield from self._read_sparse_records(member, records, stored)
                member.size, stretches, stored = mapped
            else:
                raise ImageError(f"{quote(name)} is of the unknown tar type {kind!r}")
            member.extents = _placed(member, stretches, stored, self._position)
        if not 0 <= member.size <= _LARGEST >= stored or abs(member.mtime) > _LATEST:
            raise ImageError(f"{quote(name)} has an impossible size or time")
        self._accept(member)
        if stored:
            if self._sink is not None:
                self._sink.begin(member)
                self._content = stored
            yield Skip(_padded(stored))

    def _read_sparse_records(
        self, member: Member, records: dict[bytes, bytes], stored: int
    ) -> _Walk[tuple[int, list[tuple[int, int]], int]]:
        """Read a PAX sparse map, 0.0, 0.1 or 1.0; return the real size, the map, what is stored."""
        member.name = records.get(b"GNU.sparse.name", member.name)
        size = pax.decimal(records, b"GNU.sparse.realsize", -1)
        if size < 0:
            size = pax.decimal(records, b"GNU.sparse.size", stored)
        if records.get(b"GNU.sparse.major") != b"1":
            numbers = [pax.number(n) for n in records.get(b"GNU.sparse.map", b"").split(b",") if n]
            return size, _pairs(numbers, member.name), stored
        text, used = b"", 0
        numbers = []
        while not numbers or len(numbers) < 1 + 2 * numbers[0]:
            if used + BLOCK > stored:
                raise ImageError(f"{quote(member.name)} has a cut sparse map")
            text += yield BLOCK
            used += BLOCK
            self._limits.header.check(used, f"the sparse map of {quote(member.name)}")
            *lines, text = text.split(b"\n")
            numbers += [pax.number(line) for line in lines]
        return size, _pairs(numbers[1 : 1 + 2 * numbers[0]], member.name), stored - used

    def _read_old_sparse_map(self, header: Header) -> _Walk[tuple[int, list[tuple[int, int]]]]:
        """Read the map of GNU's own sparse type: four entries, then blocks of 21."""
        numbers: list[int] = []
        used = 0
        fields, more = header.block[386:482], header.block[482]
        while True:
            for at in range(0, len(fields), 24):
                if fields[at : at + 24].strip(b"\0"):
                    numbers.append(number(fields[at : at + 12], header.start))
                    numbers.append(number(fields[at + 12 : at + 24], header.start))
            if not more:
                break
            used += BLOCK
            self._limits.header.check(used, f"the sparse map of {quote(header.name)}")
            block = yield BLOCK
            fields, more = block[:504], block[504]
        size = number(header.block[483:495], header.start)
        return size, _pairs(numbers, header.name)

    def _accept(self, member: Member) -> None:
        """Take a finished member, within the bounds."""
        name, target = member.name, member.target
        if len(name) + len(target) > self._longest_path:
            self._limits.path.check(max(len(name), len(target)), quote(name))
        if not name or b"\0" in name or b"\0" in target:
            raise ImageError(
                f"a member near byte {self._position} has an unusable name: {quote(name)}"
            )
        if not target and member.kind in (SYMLINK, HARD_LINK):
            raise ImageError(f"the link {quote(name)} has no target")
        self._held += weight(member)
        if self._held >= _CHARGE or len(self.members) - self._counted >= _CHARGE_MEMBERS:
            self._charge()
        self.members.append(member)
        if len(self.members) > self._most_members:
            self._limits.entries.check(len(self.members), "the number of members")

    def _charge(self) -> None:
        """Use up what the members since the last time hold."""
        held, self._held = self._held, 0
        new, self._counted = len(self.members) - self._counted, len(self.members)
        self._metadata.take(held)
        self._hold(held + MEMBER * new)


def _read_acls(member: Member, records: dict[bytes, bytes]) -> None:
    """Give a member its ACLs; a directory alone has a default one.

    Where no template can have the access ACL, the mode's group bits are the group's own.
    """
    access = member.access_acl = acl.read(records, ACCESS_ACL, member.name)
    if access and acl.fault(access):
        member.mode = member.mode & ~0o070 | acl.group_permissions(access) << 3
    if member.kind == DIRECTORY:
        member.default_acl = acl.read(records, DEFAULT_ACL, member.name)


def _pairs(numbers: list[int], name: bytes) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise ImageError(f"{quote(name)} has an odd sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _placed(
    member: Member, pieces: list[tuple[int, int]], stored: int, position: int
) -> tuple[tuple[int, int, int], ...]:
    """Give each piece of content its place in the archive, after checking the map."""
    extents = []
    end = used = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > member.size:
            raise ImageError(f"{quote(member.name)} has an impossible sparse map")
        if length:
            extents.append((offset, length, position + used))
        end = offset + length
        used += length
    if used != stored:
        raise ImageError(f"{quote(member.name)} stores {stored} bytes, its sparse map has {used}")
    return tuple(extents)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
