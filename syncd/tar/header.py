"""One header block of a tar archive, read: v7, ustar, GNU and star alike.

Pure.  Never guesses: a wrong checksum and a field that is no number are an ImageError.

Sources: POSIX.1-2017 pax(1) "ustar Interchange Format";
https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

from __future__ import annotations

import re
from functools import lru_cache

from syncd.errors import ImageError
from syncd.tar.member import FIELDS, total

_OCTAL = re.compile(rb"-?[0-7]+")
_LARGEST_DEVICE = (1 << 20) - 1  # MINORBITS, linux/kdev_t.h; no major is larger either


class Header:
    """The fields of one 512-byte header block, its checksum verified."""

    __slots__ = (
        "block", "device", "gid", "kind", "mode", "mtime", "name", "size", "start", "target", "uid",
    )  # fmt: skip

    def __init__(self, block: bytes, start: int) -> None:
        (name, mode, uid, gid, size, mtime, checksum, self.kind, target,
         magic, _, _, _, major, minor, prefix) = FIELDS.unpack_from(block)  # fmt: skip
        self.block, self.start = block, start
        self.name = name.split(b"\0", 1)[0]
        self.target = target.split(b"\0", 1)[0]
        try:
            _verify_checksum(block, checksum, start)
            self.mode = _decoded(mode)
            self.uid = _decoded(uid)
            self.gid = _decoded(gid)
            self.size = _decoded(size)
            self.mtime = _decoded(mtime)
        except ValueError:
            raise _bad_number(start) from None
        if self.size < 0 or self.uid < 0 or self.gid < 0:
            raise ImageError(f"the tar header at byte {start} has a negative size or owner")
        if magic == b"ustar\0":
            # star keeps its own times behind a shorter prefix and signs with "tar" at the end.
            prefix = prefix[:131] if block[508:512] == b"tar\0" else prefix
            prefix = prefix.split(b"\0", 1)[0]
            if prefix:
                self.name = prefix + b"/" + self.name
        self.device = (0, 0)
        if self.kind in b"34" and magic.startswith(b"ustar"):
            self.device = (number(major, start), number(minor, start))
            if not 0 <= min(self.device) <= max(self.device) <= _LARGEST_DEVICE:
                raise ImageError(f"the tar header at byte {start} has an impossible device number")


def _verify_checksum(block: bytes, stored: bytes, start: int) -> None:
    """Compare with the sum of all bytes, the checksum's own read as spaces (POSIX ustar)."""
    expected = _decoded(stored)
    found = total(block) - sum(stored) + 8 * 0x20
    if found == expected:
        return
    # Some historic tars summed signed characters; readers accept both.
    if found - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) != expected:
        raise ImageError(f"the tar header at byte {start} has a wrong checksum, or this is no tar")


def number(text: bytes, start: int) -> int:
    """Read a numeric field of the header at byte `start`; raise ImageError when it is none."""
    try:
        return _decoded(text)
    except ValueError:
        raise _bad_number(start) from None


def _bad_number(start: int) -> ImageError:
    return ImageError(f"the tar header at byte {start} has a bad number, or this is no tar")


@lru_cache(4096)
def _decoded(text: bytes) -> int:
    """Read octal, or GNU's base-256 when the first bit is set; raise ValueError.

    Most fields of an archive recur.
    """
    if text[0] & 0x80:
        value = int.from_bytes(text, "big", signed=text[0] == 0xFF)
        return value if text[0] == 0xFF else value - (0x80 << 8 * (len(text) - 1))
    digits = text.split(b"\0", 1)[0].strip(b" ")
    if digits and not _OCTAL.fullmatch(digits):
        raise ValueError("not octal")
    return int(digits or b"0", 8)
