"""Templates made in tests and read back, with Python's tarfile rather than with syncd's parser."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import zstandard

from syncd.convert.frame_store import FrameSizes, FrameStore
from syncd.convert.options import Options
from syncd.convert.pipeline import convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.written_template import WrittenTemplate
from syncd.limits import Allowance, Limits
from syncd.oci.reference import Platform
from syncd.oci.source import open_image
from syncd.tar.member import HARD_LINK, Member
from syncd.tar.reader import Parser
from tests.images import Content, write_layout

AMD64 = Platform("linux", "amd64")

XATTR = "SCHILY.xattr."


@dataclass(frozen=True)
class Entry:
    """One member of a template; `mtime` in nanoseconds, a hard link's content is its target's."""

    name: bytes
    kind: bytes
    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes
    target: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]


def flatten(content: Content, folder: Path, limits: Limits | None = None) -> Path:
    """Convert an image through a layout in `folder`; return the template, alone in its folder."""
    convert_layout(write_layout(folder / "layout", {"": content}), folder, limits)
    return folder / "out" / "template.tar.zst"


def convert_layout(
    layout: Path, folder: Path, limits: Limits | None = None, sizes: FrameSizes | None = None
) -> WrittenTemplate:
    """Convert the one image of a layout to `folder`/out/template.tar.zst."""
    for name in ("spool", "out"):
        (folder / name).mkdir(exist_ok=True)
    options = Options(
        ScratchSpace(folder / "spool"),
        level=1,
        limits=limits or Limits(),
        frame_sizes=sizes or FrameSizes(),
    )
    return convert(open_image(f"oci:{layout}"), folder / "out" / "template.tar.zst", options)


def members(archive: bytes, limits: Limits | None = None, step: int = 1 << 20) -> list[Member]:
    """Return the members that syncd finds in a tar that it is fed in steps of this many bytes."""
    limits = limits or Limits()
    parser = Parser(limits, Allowance(limits.metadata, "the metadata of the archive"))
    for at in range(0, len(archive), step):
        parser.feed(archive[at : at + step])
    parser.close()
    return parser.members


def read(template: Path) -> list[Entry]:
    """Return a template's members in their order."""
    return entries(decompressed(template))


def decompressed(template: Path) -> bytes:
    """Return a template's tar."""
    engine = zstandard.ZstdDecompressor()
    with template.open("rb") as file:
        return engine.stream_reader(file, read_across_frames=True).read()


def checked(template: bytes) -> list[Entry]:
    """Return a template's members in their order, which is one that GNU tar extracts rightly.

    Each name stands once, behind its folder, without `.wh.`; a hard link behind its target.
    """
    engine = zstandard.ZstdDecompressor()
    found = entries(engine.stream_reader(template, read_across_frames=True).read())
    assert found[0].name == b"./"
    seen = {b"./"}
    for entry in found[1:]:
        folder, _, last = entry.name.rstrip(b"/").rpartition(b"/")
        assert folder + b"/" in seen
        assert not seen & {entry.name, entry.name.rstrip(b"/"), entry.name + b"/"}
        assert not last.startswith(b".wh.")
        assert entry.kind != HARD_LINK or entry.target in seen
        seen.add(entry.name)
    return found


def entries(plain: bytes) -> list[Entry]:
    """Return a tar's members in their order."""
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:", errorlevel=2) as archive:
        return [_entry(archive, info) for info in archive]


def _entry(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Entry:
    # A hard link may be one to a symlink, which tarfile would follow.
    source = archive.getmember(info.linkname) if info.islnk() else info
    reader = archive.extractfile(source) if source.isreg() else None
    text = info.pax_headers.get("mtime")
    return Entry(
        os.fsencode(info.name) + b"/" * info.isdir(),
        info.type,
        info.mode,
        (info.uid, info.gid),
        int(Decimal(text) * 10**9) if text else int(info.mtime) * 10**9,
        reader.read() if reader else b"",
        os.fsencode(info.linkname),
        (info.devmajor, info.devminor),
        {
            key.removeprefix(XATTR): os.fsencode(value)
            for key, value in info.pax_headers.items()
            if key.startswith(XATTR)
        },
    )


def put(frames: FrameStore, *parts: bytes) -> bytes:
    """Put a frame as a layer does, when it is not here; return its name."""
    name = frames.name(parts)
    if not frames.has(name):
        frames.put(name, parts)
    return name
