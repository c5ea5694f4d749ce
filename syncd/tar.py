"""Reading tar archives: members from a stream of bytes.

Pure: `Parser` is fed chunks and knows where each member's content lies, without ever holding it.
Reads what images contain in practice: v7, ustar, PAX,
GNU and star headers, GNU sparse files in all four forms.  Never guesses: what is damaged, cut or
unknown is an ImageError.

Sources: POSIX.1-2017 pax(1) "pax Interchange Format" and "ustar Interchange Format";
https://www.gnu.org/software/tar/manual/html_node/Standard.html and Sparse-Formats.html.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from syncd import pax
from syncd.errors import ImageError
from syncd.header import Header, number
from syncd.limits import Allowance, Limits
from syncd.member import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    ITEM,
    SYMLINK,
    Member,
    quote,
    weight,
)

_WITHOUT_CONTENT = (HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO)
_GNU_SPARSE = b"S"
_CHARGE = 16 << 10  # bytes of metadata that are charged at a time, since that takes a lock
_LARGEST = 1 << 60
_LATEST = (1 << 62) * 10**9
_ZERO_BLOCK = bytes(BLOCK)


class Sink(Protocol):
    """Takes the contents of an archive's members as they go by."""

    def begin(self, member: Member) -> None:
        """Hear that this member's content comes next; there is some."""

    def take(self, content: memoryview) -> None:
        """Take the next bytes of the content, as the archive stores it: without holes."""


class Parser:
    """Finds the members of one tar archive that is fed to it in chunks of any size.

    What follows the end-of-archive marker is passed over, as every tar does.  `metadata` is used
    up by what is held of each member; archives that belong together share one.  Contents go to
    the `sink`, if there is one.
    """

    def __init__(
        self, limits: Limits, metadata: Allowance | None = None, sink: Sink | None = None
    ) -> None:
        self.members: list[Member] = []
        self._sink = sink
        self._content = 0
        self._limits = limits
        self._metadata = metadata or Allowance(limits, "metadata", "the metadata of the archive")
        self._held = 0
        self._position = 0
        self._pending = b""
        self._skip = 0
        self._between_members = True
        self._walk = self._read_archive()
        self._need = next(self._walk)

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
            self._need = self._walk.send(block)
            while self._need < 0:
                self._skip -= self._need
                self._position -= self._need
                self._need = self._walk.send(b"")

    def pass_over(self) -> int:
        """Return how many of the next bytes are content that need not be fed, and skip them."""
        passed, self._skip = self._skip, 0
        return passed

    def close(self) -> None:
        """Tell the parser that the archive ended; raise ImageError if it was cut, or LimitError."""
        self._charge()
        if self._pending or not self._between_members or 0 < self._skip < _LARGEST // 2:
            raise ImageError(f"the tar archive is cut short near byte {self._position}")

    def _read_archive(self) -> Generator[int, bytes, None]:
        """Walk the archive: yield n to be sent n bytes, or -n to have n bytes passed over."""
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
                self._limits.check("header", header.size, f"the extended header at byte {start}")
                payload = (yield _padded(header.size))[: header.size] if header.size else b""
                if header.kind == b"L":
                    own[b"path"] = payload.split(b"\0", 1)[0]
                elif header.kind == b"K":
                    own[b"linkpath"] = payload.split(b"\0", 1)[0]
                elif header.kind == b"g":
                    new = pax.records(payload, start)
                    self._metadata.take(sum(len(k) + len(v) + ITEM for k, v in new.items()))
                    shared.update(new)
                else:
                    own.update(pax.records(payload, start))
                extended = extended or header.kind != b"g"
                self._between_members = not extended
                continue
            yield from self._read_member(header, shared | own if shared else own)
            own, extended = {}, False
            self._between_members = True
        while True:
            self._skip = _LARGEST
            yield BLOCK

    def _read_member(
        self, header: Header, records: dict[bytes, bytes]
    ) -> Generator[int, bytes, None]:
        """Add the member of `header` and of the extended `records` that came before it."""
        name = records.get(b"path") or header.name
        kind = header.kind
        if kind in b"\x007":
            # POSIX: both mean a regular file; in v7 archives a trailing slash makes a folder.
            kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else FILE
        member = Member(
            name,
            kind,
            header.mode & 0o7777,
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
            yield -_padded(stored)

    def _read_sparse_records(
        self, member: Member, records: dict[bytes, bytes], stored: int
    ) -> Generator[int, bytes, tuple[int, list[tuple[int, int]], int]]:
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
            self._limits.check("header", used, f"the sparse map of {quote(member.name)}")
            *lines, text = text.split(b"\n")
            numbers += [pax.number(line) for line in lines]
        return size, _pairs(numbers[1 : 1 + 2 * numbers[0]], member.name), stored - used

    def _read_old_sparse_map(
        self, header: Header
    ) -> Generator[int, bytes, tuple[int, list[tuple[int, int]]]]:
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
            self._limits.check("header", used, f"the sparse map of {quote(header.name)}")
            block = yield BLOCK
            fields, more = block[:504], block[504]
        size = number(header.block[483:495], header.start)
        return size, _pairs(numbers, header.name)

    def _accept(self, member: Member) -> None:
        """Take a finished member, within the bounds."""
        name, target = member.name, member.target
        if len(name) + len(target) > self._limits.path:
            self._limits.check("path", max(len(name), len(target)), quote(name))
        if not name or b"\0" in name or b"\0" in target:
            raise ImageError(
                f"a member near byte {self._position} has an unusable name: {quote(name)}"
            )
        if not target and member.kind in (SYMLINK, HARD_LINK):
            raise ImageError(f"the link {quote(name)} has no target")
        self._held += weight(member)
        if self._held >= _CHARGE:
            self._charge()
        self.members.append(member)
        if len(self.members) > self._limits.entries:
            self._limits.check("entries", len(self.members), "the number of members")

    def _charge(self) -> None:
        """Use up what the members since the last time hold."""
        held, self._held = self._held, 0
        self._metadata.take(held)


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
