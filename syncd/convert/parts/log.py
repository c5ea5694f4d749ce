"""Which parts a layer has, and where their bytes were put: what the next layer finds them by.

A row names the sha256 of a part and its place: in the kept small contents of the layer, or in a
frame of a template and the frames behind it.  A part gets a row only when its bytes were seen to
have this digest, so that no image can pass its own bytes off as another's.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from typing import NamedTuple

from blake3 import blake3

from syncd.convert.frame_store import FrameSizes
from syncd.convert.parts.table import Table
from syncd.tar import Member, is_whole

ROW = struct.Struct("<32sIIQ")
"""sha256, size, number of the frame from 1 on (0 for small contents), offset there."""
NAME = 32  # bytes of a frame's name
_HEAD = struct.Struct("<II")  # numbers of frames and of rows
_DIGEST = 32


class Rows(NamedTuple):
    """The rows of one layer, and the names of the frames that they speak of."""

    frames: list[bytes]
    rows: memoryview


class PartLog:
    """Follows the contents of one layer, part by part.

    With `digesting` each part is digested as it goes by; otherwise whoever puts the tar together
    says by `came` where it put each file, whose parts are known to be right.
    """

    def __init__(self, table: Table, *, digesting: bool) -> None:
        self._table = table
        self._places = array("Q")
        self._seen = bytearray(len(table.parts))
        self._members: list[tuple[int, Member]] = []
        self._digesting = digesting
        self._part = self._end = self._left = 0
        self._hasher = hashlib.sha256()

    def came(self, place: int) -> None:
        """Hear that the next file of the table begins at this byte of the tar, and is right."""
        first = self._table.ends[len(self._places) - 1] if self._places else 0
        last = self._table.ends[len(self._places)]
        self._places.append(place)
        self._seen[first:last] = b"\1" * (last - first)

    def begin(self, member: Member) -> None:
        """Hear that this member's content comes next; its extents are places in the tar."""
        if not is_whole(member):
            self._digesting = False  # the writers of tables expand what is sparse
            return
        place = member.extents[0][2]
        self._members.append((place, member))
        if self._digesting:
            sizes, file = self._table.sizes, len(self._places)
            if file < len(sizes) and sizes[file] == member.size:
                self._places.append(place)
                self._end = self._table.ends[file]
                self._begin_part()
            else:
                self._digesting = False  # the table speaks of other files than the tar has

    def take(self, content: memoryview) -> None:
        """Take the next bytes of the content."""
        while self._digesting and content:
            step = min(self._left, len(content))
            digest = self._table.parts[self._part].digest
            if digest:
                self._hasher.update(content[:step])
            content = content[step:]
            self._left -= step
            if self._left:
                return
            self._seen[self._part] = digest == self._hasher.digest()
            self._part += 1
            if self._part < self._end:
                self._begin_part()

    def encoded(self, sizes: FrameSizes) -> bytes:
        """Return the rows of the parts that were seen, once every member is where it stays."""
        frames: list[bytes] = []
        rows: list[bytes] = []
        members = dict(self._members)
        table, first = self._table, 0
        for file, place in enumerate(self._places):
            last = table.ends[file]
            member = members.get(place)
            if member is not None and member.size == table.sizes[file]:
                at, base = 0, len(frames) + 1
                frames += member.frames
                kept = 0 if member.frames else member.extents[0][2]
                for nth in range(first, last):
                    part = table.parts[nth]
                    if self._seen[nth] and part.digest:
                        if member.frames:
                            frame, offset = divmod(at, sizes.largest)
                            rows.append(ROW.pack(part.digest, part.size, base + frame, offset))
                        else:
                            rows.append(ROW.pack(part.digest, part.size, 0, kept + at))
                    at += part.size
            first = last
        content = _HEAD.pack(len(frames), len(rows)) + b"".join(frames) + b"".join(rows)
        return content + blake3(content).digest()

    def _begin_part(self) -> None:
        self._left = self._table.parts[self._part].size
        self._hasher = hashlib.sha256()


def decoded(content: bytes) -> Rows | None:
    """Return the rows that `PartLog.encoded` wrote; None for anything else."""
    body = memoryview(content)[:-_DIGEST]
    if len(body) < _HEAD.size or blake3(body).digest() != content[-_DIGEST:]:
        return None
    frames, rows = _HEAD.unpack_from(body)
    names, behind = body[_HEAD.size :], _HEAD.size + frames * NAME
    if len(body) != behind + rows * ROW.size:
        return None
    return Rows([bytes(names[at * NAME : at * NAME + NAME]) for at in range(frames)], body[behind:])
