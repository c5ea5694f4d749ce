"""Which parts a layer has, and where their bytes were put: what the next layer finds them by.

A row names the sha256 of a part and its place: in the kept small contents of the layer, or in a
frame of a template and the frames behind it.  The digest is what the layer's own table says, and
the bytes were not compared with it: to digest each part would cost a first pull more than anything
else that Python can spare it.  So a row is a claim, which an image could make of bytes that are not
those; whoever takes a part has to notice, by the diff_id of the tar that it makes of it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from blake3 import blake3

from syncd.convert.frame_store import FrameSizes
from syncd.convert.parts.table import DIGEST, Table
from syncd.tar import Member, is_whole

ROW = DIGEST + 8 + 8 + 4
"""Bytes of a row: sha256, size, offset, and number of the frame from 1 on (0: small contents)."""
_NAME = 32  # bytes of a frame's name
_HEAD = struct.Struct("<II")  # numbers of frames and of rows


class Rows(NamedTuple):
    """The rows of one layer, column by column, and the names of the frames that they speak of."""

    frames: Sequence[bytes]
    digests: memoryview
    sizes: memoryview
    offsets: memoryview
    numbers: memoryview

    def digest(self, nth: int) -> bytes:
        """Return the digest of a row's part."""
        return bytes(self.digests[nth * DIGEST : (nth + 1) * DIGEST])

    def frames_of(self, nth: int, largest: int) -> slice:
        """Return where in `frames` those are that a row's part lies in; frames hold `largest`."""
        number = self.numbers[nth]
        if not number:
            return slice(0)
        return slice(number - 1, number + (self.offsets[nth] + self.sizes[nth] - 1) // largest)


def encoded(table: Table, members: Iterable[Member], sizes: FrameSizes) -> bytes:
    """Return the rows of a layer whose members are where they stay.

    The files of the table are those of the layer that are not empty, in their order; from the first
    one on that is another file, nothing is known of any.
    """
    frames: list[bytes] = []
    numbers, offsets = array("I"), array("Q")
    first = file = 0
    for member in members:
        if not member.size:
            continue
        if file == len(table.file_sizes) or table.file_sizes[file] != member.size:
            break
        if not (member.frames or is_whole(member)):  # the writers of tables expand what is sparse
            break
        end = table.file_ends[file]
        base, at = len(frames) + 1, 0
        place = 0 if member.frames else member.extents[0][2]
        for size in table.sizes[first:end]:
            if member.frames:
                number, offset = divmod(at, sizes.largest)
                numbers.append(base + number)
                offsets.append(offset)
            else:
                numbers.append(0)
                offsets.append(place + at)
            at += size
        frames += member.frames
        first, file = end, file + 1
    columns = table.digests[: first * DIGEST], table.sizes[:first].tobytes(), offsets, numbers
    content = b"".join((_HEAD.pack(len(frames), first), *frames, *columns))
    return content + blake3(content).digest()


def decoded(content: bytes) -> Rows | None:
    """Return the rows that `encoded` wrote; None for anything else."""
    body = memoryview(content)[:-DIGEST]
    if len(body) < _HEAD.size or blake3(body).digest() != content[-DIGEST:]:
        return None
    frames, rows = _HEAD.unpack_from(body)
    names, body = (
        body[_HEAD.size : _HEAD.size + frames * _NAME],
        body[_HEAD.size + frames * _NAME :],
    )
    if len(names) != frames * _NAME or len(body) != rows * ROW:
        return None
    digests, body = body[: rows * DIGEST], body[rows * DIGEST :]
    return Rows(
        [bytes(names[at : at + _NAME]) for at in range(0, len(names), _NAME)],
        digests,
        body[: rows * 8].cast("Q"),
        body[rows * 8 : rows * 16].cast("Q"),
        body[rows * 16 :].cast("I"),
    )
