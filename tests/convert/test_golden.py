"""What `convert` promises of bytes: an image that was converted once gives the same file for ever.

The digests below were taken from syncd before its modules were moved into packages.  Published
templates are compared by digest and their frames are reused, so a change here is a change of format
and needs a reason.  Frames are zstd's own output: another version of zstd may compress otherwise,
the plain tar may not.
"""

from __future__ import annotations

import hashlib
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from syncd.convert.options import Options
from syncd.convert.pipeline import convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.written_template import WrittenTemplate
from syncd.formats import Format
from syncd.oci.source import open_image
from tests.archives import (
    directory,
    file,
    hardlink,
    member,
    opaque,
    padded,
    symlink,
    whiteout,
)
from tests.images import Content, image, layer, write_layout
from tests.templates import decompressed, entries

ZSTD = (1, 5, 7)
"""The version of zstd that made the files."""
CAPABILITY = bytes.fromhex("0100000202000000000000000000000000000000")
"""What setcap(8) writes for cap_chown=ep."""


def noise(seed: int, size: int) -> bytes:
    """Return bytes that look random and are always the same."""
    return random.Random(seed).randbytes(size)


def text(seed: int, size: int) -> bytes:
    """Return bytes that compress about as well as a program does."""
    words = [noise(seed + nth, 24) for nth in range(200)]
    return b"".join(random.Random(seed).choices(words, k=size // 24 + 1))[:size]


def layered() -> Content:
    """Return an image of three layers: links, whiteouts, attributes, odd names and owners."""
    bottom = layer(
        directory("etc", mtime=1_500_000_000_123_456_789),
        file("etc/passwd", b"root:x:0:0\n", uid=3_000_000, gid=5, mtime=10**18 + 1),
        file("etc/shadow", b"secret", mode=0o4750),
        hardlink("etc/linked", "etc/shadow"),
        directory("opt/app", mode=0o2775),
        file("opt/app/old", b"old"),
        file("opt/gone", b"gone"),
        directory("dev"),
        file("dev/first", b"content of a name below dev"),
        hardlink("usr/second", "dev/first"),
        member("dev/null", tarfile.CHRTYPE, device=(1, 3)),
        symlink("lib", "usr/lib"),
        directory("usr/lib"),
        file("lib/through-a-link", b"x" * 1000),
        file("n" * 200 + "/" + "m" * 120, b"long"),
        file(b"not-utf-8-\xff\xfe", b"bytes", mtime=-1_500_000_000),
    )
    middle = layer(
        opaque("opt/app"),
        whiteout("opt/gone"),
        whiteout("etc/shadow"),
        file(
            "opt/app/new",
            b"new",
            xattrs={"user.note": b"\x00\xff", "security.capability": CAPABILITY},
        ),
        file("opt/app/user", b"attribute", mode=0o675, xattrs={"user.a": b"1"}),
        hardlink("opt/app/passwd", "etc/passwd"),
        compression="zstd",
    )
    top = layer(
        directory("etc", mode=0o711),
        file("etc/linked.copy", b"top"),
        symlink("opt/app/old", "/absolute/../target"),
        file("numbers", b"", uid=3_000_000_000, form=tarfile.GNU_FORMAT),
        compression="",
    )
    return image(bottom, middle, top)


def large() -> Content:
    """Return an image of files of several frames, sparse files, and many small files."""
    sparse = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "var/sparse",
        "GNU.sparse.realsize": str(9 << 20),
    }
    stored = padded(b"2\n4096\n100000\n5242880\n1024\n") + text(3, 101_024)
    old_map = {
        "GNU.sparse.map": f"0,{1 << 17},{1 << 18},{1 << 17}",
        "GNU.sparse.size": str(3 << 17),
    }
    bottom = layer(
        file("usr/bin/program", text(1, 5_000_001)),
        file("usr/bin/noise", noise(2, (2 << 20) + 1)),
        file("usr/bin/edge", text(4, 64 << 10)),
        file("usr/bin/below", text(4, (64 << 10) - 1)),
        member("GNUSparseFile.0/sparse", tarfile.REGTYPE, content=stored, records=sparse),
        file("var/map", text(5, 1 << 18), records=old_map),
        *(file(f"share/{nth:04}", text(nth, nth * 7)) for nth in range(800)),
    )
    top = layer(
        hardlink("usr/bin/other", "usr/bin/program"),
        file("usr/bin/noise", noise(2, 2 << 20)),
        whiteout("share/0007"),
        compression="zstd",
    )
    return image(bottom, top)


def runnable() -> Content:
    """Return an image whose config says how to run it."""
    runtime = {
        "Entrypoint": ["/init"],
        "Cmd": ["--quiet"],
        "Env": ["PATH=/bin", "LANG=C"],
        "User": "1000:1000",
        "WorkingDir": "/srv",
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"org.opencontainers.image.title": "golden"},
    }
    bottom = layer(file("init", text(6, 3 << 20), mode=0o755), directory("srv", uid=1000))
    top = layer(file("srv/data", noise(7, 70_000)), whiteout("nothing"), compression="zstd")
    return image(bottom, top, runtime=runtime, docker=True)


@dataclass(frozen=True)
class Golden:
    """How an image is converted, the SHA-256 of the file, and that of its plain tar."""

    content: Content
    form: Format
    level: int
    digest: str
    diff_id: str


GOLDEN = {
    "layered": Golden(
        layered(),
        Format.ROOTFS,
        3,
        "2bb9354719eb195f00c18302fe49f7c7863788512fdaf92216b7a2024de7532f",
        "e30beb4013bca6afdc8bf7ee14863ab2aa1aa96204de3fa539a117f8162c109e",
    ),
    "large": Golden(
        large(),
        Format.ROOTFS,
        1,
        "07d2ada097863dc82526db77de01bea6336520516c939b743163f59103b855ea",
        "93a87f6003a71e21863bdd7055321c74273cc9b747b8f1a6973a117733299a94",
    ),
    "runnable": Golden(
        runnable(),
        Format.OCI,
        9,
        "b6ce72da8b0411f49b8099d6189ec4479bf30a6cdb803f769ca333ec3c6b7785",
        "953c1f6ffd60a1573644718c47eecd8c5dd6da586d711c6ce75238f170ce29dc",
    ),
}


def converted(golden: Golden, folder: Path) -> tuple[Path, WrittenTemplate]:
    """Convert an image as `syncd convert` does."""
    layout = write_layout(folder / "layout", {"": golden.content})
    output = folder / f"template{golden.form.suffix}"
    options = Options(ScratchSpace(folder), format=golden.form, level=golden.level)
    return output, convert(open_image(f"oci:{layout}"), output, options)


def plain_tar(path: Path, form: Format, folder: Path) -> bytes:
    """Return the plain tar of a template, which in an OCI archive is the one layer's."""
    if form is Format.ROOTFS:
        return decompressed(path)
    blobs = [one.content for one in entries(path.read_bytes())]
    (folder / "layer").write_bytes(max(blobs, key=len))
    return decompressed(folder / "layer")


@pytest.mark.parametrize("name", GOLDEN)
def test_plain_tar(name: str, tmp_path: Path) -> None:
    """The plain tar of a template is the one that it always was."""
    golden = GOLDEN[name]
    path, written = converted(golden, tmp_path)
    found = hashlib.sha256(plain_tar(path, golden.form, tmp_path)).hexdigest()
    assert found == golden.diff_id
    assert written.diff_id is None or written.diff_id.encoded == golden.diff_id


@pytest.mark.skipif(zstandard.ZSTD_VERSION != ZSTD, reason="another version of zstd")
@pytest.mark.parametrize("name", GOLDEN)
def test_file(name: str, tmp_path: Path) -> None:
    """The file is the one that it always was, to the byte."""
    path, written = converted(GOLDEN[name], tmp_path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == written.digest.encoded == GOLDEN[name].digest
