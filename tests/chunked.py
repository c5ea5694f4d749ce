"""Layers in the form zstd:chunked, written as containers/storage writes them.

    bottom = chunked_layer(tar(file("etc/passwd", b"root")))
    image(bottom)  # its descriptor carries the annotations

`Chunked` lets a test spoil each of the parts before they are put together.  True to
https://github.com/containers/storage/blob/main/pkg/chunked/compressor/compressor.go and
internal/minimal/compression.go beside it, and, for tar-split data, to
https://github.com/vbatts/tar-split/blob/master/tar/asm/disassemble.go; what the real writer makes
of the same tar is compared with it in `tests.e2e.test_chunked`.  Where parts end, the content says,
as there, but in another way.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import zstandard

from tests.images import Layer

PREFIX = "io.github.containers.zstd-chunked."
MARK = b"\x5a\xa5"
"""What a part ends with: of noise it is one in 64 KiB, as with the real writer."""
HOLE = 1 << 10
"""Zeros from which on they are a part of their own (`holesThreshold`)."""

_KINDS = {
    tarfile.REGTYPE: "reg",
    tarfile.AREGTYPE: "reg",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.DIRTYPE: "dir",
    tarfile.FIFOTYPE: "fifo",
}
_MAGIC = b"GNUlInUx"  # `ZstdChunkedFrameMagic`


@dataclass
class Chunked:
    """What a blob is made of: the frames of the tar, the entries of the table, the tar-split."""

    frames: bytes = b""
    entries: list[dict[str, Any]] = field(default_factory=list)
    split: list[dict[str, Any]] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    """What the descriptor says instead; keys without their prefix."""
    top: dict[str, Any] = field(default_factory=dict)
    """What stands beside the entries instead."""

    def layer(self, plain: bytes) -> Layer:
        """Put the blob together."""
        lines = b"".join(_line(nth, entry) for nth, entry in enumerate(self.split))
        split = zstandard.compress(lines)
        table = {
            "version": 1,
            "entries": self.entries,
            "tarSplitDigest": _digest(split),
        } | self.top
        content = json.dumps(table, separators=(",", ":")).encode()
        stored = zstandard.compress(content)
        at = len(self.frames) + 8
        behind = at + len(stored) + 8
        numbers = at, len(stored), len(content), 1, behind, len(split), len(lines)
        footer = struct.pack("<7Q", *numbers) + _MAGIC
        said = {
            "manifest-checksum": _digest(stored),
            "manifest-position": f"{at}:{len(stored)}:{len(content)}:1",
            "tarsplit-position": f"{behind}:{len(split)}:{len(lines)}",
        } | self.annotations
        blob = self.frames + _skippable(stored) + _skippable(split) + _skippable(footer)
        notes = {PREFIX + key: text for key, text in said.items()}
        return Layer(blob, plain, "zstd", notes)


def chunked_layer(plain: bytes, mark: bytes = MARK) -> Layer:
    """Return the layer of a whole tar; its files are cut into parts behind each `mark`."""
    return chunked(plain, mark).layer(plain)


def chunked(plain: bytes, mark: bytes = MARK) -> Chunked:
    """Return what the blob of a whole tar is made of."""
    made = Chunked()
    at = 0
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
        for member in archive:
            size = member.size if member.isreg() else 0
            raw = plain[at : member.offset_data]
            made.frames += zstandard.compress(raw)
            made.split.append({"type": 2, "payload": raw})
            made.split.append(_file(member, plain[member.offset_data : member.offset_data + size]))
            _add(made, member, plain[member.offset_data : member.offset_data + size], mark)
            at = member.offset_data + size  # the padding comes with the next header
    made.frames += zstandard.compress(plain[at:])
    made.split.append({"type": 2, "payload": plain[at:]})
    return made


def _add(made: Chunked, member: tarfile.TarInfo, content: bytes, mark: bytes) -> None:
    name = member.name + "/" * member.isdir()  # as the header has it
    entry: dict[str, Any] = {"type": _KINDS[member.type], "name": name, "mode": member.mode}
    if member.linkname:
        entry["linkName"] = member.linkname
    entry |= {"modtime": "2026-11-27T00:00:00Z"}
    made.entries.append(entry)
    if not content:
        return
    entry |= {"size": len(content), "digest": _digest(content), "offset": len(made.frames)}
    parts = list(_parts(content, mark))
    for nth, (begin, piece, kind) in enumerate(parts):
        own: dict[str, Any] = entry if not nth else {"type": "chunk", "name": member.name}
        if nth:
            made.entries.append(own)
            own["chunkOffset"] = begin
        if len(parts) > 1:
            own |= {
                "chunkSize": len(piece),
                "chunkDigest": _digest(piece),
                "offset": len(made.frames),
            }
            if kind:
                own["chunkType"] = kind
        made.frames += zstandard.ZstdCompressor(write_content_size=False).compress(piece)
    entry["endOffset"] = len(made.frames)


def _parts(content: bytes, mark: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Cut a file's content: where a part begins, the part, and its kind."""
    begin = 0
    for found in re.finditer(rb"\0{%d,}|(%b)" % (HOLE, re.escape(mark)), content):
        end = found.end() if found[1] else found.start()
        if begin < end:
            yield begin, content[begin:end], ""
        if not found[1]:
            yield end, found[0], "zeros"
        begin = found.end()
    if begin < len(content):
        yield begin, content[begin:], ""


def _file(member: tarfile.TarInfo, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": 1, "name": member.name + "/" * member.isdir()}
    if content:
        entry["size"] = len(content)
    return entry | {"payload": hashlib.sha256(content).digest()[:8] if content else None}


def _line(nth: int, entry: dict[str, Any]) -> bytes:
    payload = entry.get("payload")
    if isinstance(payload, bytes):
        entry = entry | {"payload": base64.b64encode(payload).decode() or None}
    return json.dumps(entry | {"position": nth}, separators=(",", ":")).encode() + b"\n"


def _skippable(content: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(content)) + content


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
