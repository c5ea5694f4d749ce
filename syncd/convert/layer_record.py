"""The record of an unpacked layer, written behind its contents, so that it is not unpacked again.

The file consists of the layer's small contents, its members in lines of JSON, the rows of its parts
(`syncd.convert.parts.rows`), if it has some, a foot, and a digest of all these bytes.  A reader
either gets what was written or an error, so nothing has to be flushed to the disk.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from blake3 import blake3

from syncd.convert.capacity import FRAME
from syncd.errors import StorageError
from syncd.limits import Hold, unbounded
from syncd.tar import MEMBER, NO_XATTRS, Member, weight

_MAGIC = b"syncd layer 5\n\0\0"
_FOOT = struct.Struct("<QQQQQQ16s")  # where members and parts begin, charges, bounds, magic
_DIGEST = 32  # bytes of the digest behind the foot, of all before it
_A_LINE = 64 << 10  # bytes of memory that the members of a line take, about
_ROW = 256  # bytes that a member takes at least
_READ = 1 << 20
_PARTS = 16 << 20  # bytes of the rows of a layer's parts at most


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """The members of an unpacked layer, and what it charged: plain bytes and bytes of metadata.

    `path` and `header` are the bounds that its paths and extended headers were within.  `parts` are
    written, and read by `parts_of` alone.
    """

    members: list[Member]
    unpacked: int
    metadata: int
    path: int
    header: int
    parts: bytes = b""

    def write(self, file: BinaryIO) -> None:
        """Write the record behind what `file` holds, the contents; raise OSError."""
        begin = file.seek(0, os.SEEK_END)
        with io.BufferedWriter(io.FileIO(file.fileno(), "wb", closefd=False)) as writer:
            for members in _lines(self.members):
                rows = [_row(member) for member in members]
                writer.write(json.dumps(rows, separators=(",", ":")).encode() + b"\n")
            behind = writer.tell()
            writer.write(self.parts)
            charged = self.unpacked, self.metadata
            writer.write(_FOOT.pack(begin, behind, *charged, self.path, self.header, _MAGIC))
        size = file.seek(0, os.SEEK_END)
        file.write(_digest(file, size))

    @classmethod
    def read(cls, file: BinaryIO, hold: Hold = unbounded) -> LayerRecord:
        """Read the record of a kept file; raise StorageError when it is not as it was written.

        `hold` is told how much memory the members take.
        """
        try:
            end = os.fstat(file.fileno()).st_size - _DIGEST
            if end < 0 or _digest(file, end) != os.pread(file.fileno(), _DIGEST, end):
                raise StorageError("a kept layer is damaged")
            foot = _foot(file)
            if foot is None:
                raise StorageError("a kept layer was written by another version")
            members = list(_members(file, foot.members, foot.parts, hold))
            return cls(members, foot.unpacked, foot.metadata, foot.path, foot.header)
        except OSError as exc:
            raise StorageError(f"a kept layer cannot be read: {exc.strerror}") from exc

    @staticmethod
    def parts_of(file: BinaryIO, bound: int = _PARTS) -> bytes:
        """Return the rows of a kept file's parts, not verified; nothing where they are not there.

        Rows of more than `bound` bytes are passed over.
        """
        try:
            foot = _foot(file)
            if foot is None or not 0 < foot.end - foot.parts <= bound:
                return b""
            return os.pread(file.fileno(), foot.end - foot.parts, foot.parts)
        except OSError:
            return b""


class _Foot(NamedTuple):
    """The foot of a kept file, and where it is."""

    members: int
    parts: int
    unpacked: int
    metadata: int
    path: int
    header: int
    end: int


def _foot(file: BinaryIO) -> _Foot | None:
    """Return the foot of a kept file; None for a file of another version."""
    end = os.fstat(file.fileno()).st_size - _DIGEST - _FOOT.size
    content = os.pread(file.fileno(), _FOOT.size, end) if end >= 0 else b""
    if len(content) != _FOOT.size:
        return None
    *numbers, magic = _FOOT.unpack(content)
    return _Foot._make((*numbers, end)) if magic == _MAGIC else None


def _digest(file: BinaryIO, size: int) -> bytes:
    """Digest the first bytes of a file, in chunks that a small cache holds."""
    hasher = blake3()
    buffer = memoryview(bytearray(min(size, _READ)))
    at = 0
    while at < size:
        got = os.preadv(file.fileno(), [buffer[: size - at]], at)
        if not got:
            break
        hasher.update(buffer[:got])
        at += got
    return hasher.digest()


def _lines(members: list[Member]) -> Iterator[list[Member]]:
    """Part the members so that those of a line never take much memory."""
    line: list[Member] = []
    held = 0
    for member in members:
        line.append(member)
        held += _ROW + weight(member)
        if held >= _A_LINE:
            yield line
            line, held = [], 0
    if line:
        yield line


def _members(file: BinaryIO, begin: int, end: int, hold: Hold) -> Iterator[Member]:
    """Read the members, a line at a time."""
    file.seek(begin)
    with io.BufferedReader(io.FileIO(file.fileno(), closefd=False), _READ) as reader:
        while begin < end:
            line = reader.readline(end - begin)
            begin += len(line)
            members = [_member(row) for row in json.loads(line)]
            hold(sum(MEMBER + weight(member) + FRAME * len(member.frames) for member in members))
            yield from members


def _row(member: Member) -> Sequence[Any]:
    """Return a member as JSON has it; bytes become text of as many characters."""
    return (
        member.name.decode("latin-1"),
        member.kind.decode("latin-1"),
        member.mode,
        member.uid,
        member.gid,
        member.mtime,
        member.size,
        member.target.decode("latin-1"),
        member.device,
        {key.decode("latin-1"): value.decode("latin-1") for key, value in member.xattrs.items()},
        member.extents,
        [name.hex() for name in member.frames],
        member.access_acl.decode("latin-1"),
        member.default_acl.decode("latin-1"),
    )


def _member(row: Sequence[Any]) -> Member:
    (name, kind, mode, uid, gid, mtime, size, target, device, xattrs, extents, frames, access,
     default) = row  # fmt: skip
    return Member(
        name.encode("latin-1"),
        kind.encode("latin-1"),
        mode,
        uid,
        gid,
        mtime,
        size,
        target.encode("latin-1"),
        tuple(device),
        {key.encode("latin-1"): value.encode("latin-1") for key, value in xattrs.items()}
        or NO_XATTRS,
        tuple(map(tuple, extents)),
        [bytes.fromhex(frame) for frame in frames] or (),
        access.encode("latin-1"),
        default.encode("latin-1"),
    )
