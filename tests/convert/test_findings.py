"""What `convert.findings` promises: what a container would lack is told, and taken out if lost."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from syncd.convert.options import Options
from syncd.convert.pipeline import convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import ImageError
from syncd.formats import Format
from syncd.oci.source import open_image
from tests.archives import directory, extended, file, hardlink, member, symlink, whiteout
from tests.images import Layer, image, layer, write_layout
from tests.templates import decompressed, members

OUT = Path("out") / "template.tar.zst"
NONE = 0xFFFFFFFF
ACL = "user::rwx\nuser:1000:rwx\ngroup::r-x\nmask::rwx\nother::r-x\n"
NAMED = ACL.replace("1000", "lisa")


def converted(
    folder: Path,
    *layers: Layer,
    form: Format = Format.ROOTFS,
    strict: bool = False,
    runtime: dict[str, object] | None = None,
) -> WrittenTemplate:
    """Convert an image of these layers to OUT."""
    content = image(*layers, runtime=runtime)
    opened = open_image(f"oci:{write_layout(folder / 'layout', {'': content})}")
    (folder / OUT).parent.mkdir(exist_ok=True)
    options = Options(ScratchSpace(folder), format=form, strict=strict)
    return convert(opened, folder / OUT, options)


def acls(folder: Path) -> dict[str, tuple[str, str, int]]:
    """Return what the template holds: access and default ACL, and the mode."""
    return {
        found.name.decode(): (found.access_acl.decode(), found.default_acl.decode(), found.mode)
        for found in members(decompressed(folder / OUT))
    }


def test_acls_of_layers(tmp_path: Path) -> None:
    """A directory over a directory brings its own ACLs; a hard link shares its file's."""
    written = converted(
        tmp_path,
        layer(
            directory("a", records={"SCHILY.acl.access": ACL, "SCHILY.acl.default": ACL}),
            directory("b", records={"SCHILY.acl.default": ACL}),
            file("b/file", b"1", records={"SCHILY.acl.access": ACL}),
        ),
        layer(
            directory("a", records={"SCHILY.acl.default": ACL}),
            directory("b"),
            hardlink("b/a-link", "b/file"),
        ),
    )
    found = acls(tmp_path)
    assert (found["./a/"], found["./b/"]) == (("", ACL, 0o755), ("", "", 0o755))
    assert (found["./b/a-link"], found["./b/file"]) == ((ACL, "", 0o644), ("", "", 0o644))
    assert written.warnings == ()


def test_lost_acls(tmp_path: Path) -> None:
    """ACLs that cannot be kept are counted and named, but not those of members that are gone."""
    named = {"SCHILY.acl.access": NAMED}
    written = converted(
        tmp_path,
        layer(*(file(f"file{nth}", mode=0o675, records=named) for nth in range(6))),
        layer(whiteout("file0"), directory("d", records={"SCHILY.acl.default": NAMED})),
    )
    (warning,) = written.warnings
    assert warning.startswith("access control lists that cannot be kept are left out: ")
    assert "'./d/' (it has the name 'lisa', not an id), './file1' (" in warning
    assert "file3" not in warning
    assert "and 3 more" in warning
    assert acls(tmp_path)["./file1"] == ("", "", 0o655)
    assert acls(tmp_path)["./d/"] == ("", "", 0o755)


PASSWD = b"root:x:0:0::/:/bin/sh\nlisa:x:1000:1000\nlisa:x:1001\nodd\nhigh:x:4294967295:\n"
GROUP = b"adm:x:4:lisa\nlisa:x:1234:\nnegative:x:-1:\nfar:x:70000:\n"


@pytest.mark.parametrize(
    ("text", "kept", "mode"),
    [
        ("u::rwx,u:lisa:rwx,g::r-x,m::rwx,o::---",
         "user::rwx\nuser:1000:rwx\ngroup::r-x\nmask::rwx\nother::---\n", 0o775),
        ("u::rwx,g::r-x,g:lisa:r--,g:adm:rwx,m::r--,o::---",
         "user::rwx\ngroup::r-x\ngroup:4:rwx\ngroup:1234:r--\nmask::r--\nother::---\n", 0o745),
        ("u::rwx,u:root:rwx,u:0:r--,g::r-x,m::rwx,o::---", "", 0o755),
        ("u::rwx,u:lisa:rwx,u:joe:rwx,g::r-x,m::rwx,o::---", "", 0o755),
        ("u::rwx,u:adm:rwx,g::r-x,m::rwx,o::---", "", 0o755),
        ("u::rwx,u:high:rwx,g::r-x,m::rwx,o::---", "", 0o755),
        ("u::rwx,g:negative:rwx,g::r-x,m::rwx,o::---", "", 0o755),
        ("u::rwx,g:odd:rwx,g::r-x,m::rwx,o::---", "", 0o755),
    ],
)  # fmt: skip
def test_names_in_acls(text: str, kept: str, mode: int, tmp_path: Path) -> None:
    """A name in an ACL, as GNU tar writes it, is that of the image's own users and groups."""
    records = {"SCHILY.acl.access": text}
    written = converted(
        tmp_path,
        layer(file("x", mode=mode & ~0o070 | 0o070, records=records), symlink("etc", "usr/etc")),
        layer(directory("usr/etc"), file("usr/etc/group", GROUP), file("etc/passwd", PASSWD)),
    )
    assert acls(tmp_path)["./x"] == (kept, "", mode)
    assert bool(written.warnings) == (not kept)


@pytest.mark.parametrize(
    "passwd",
    [
        extended(
            {
                "GNU.sparse.size": b"2000000",
                "GNU.sparse.numblocks": b"1",
                "GNU.sparse.map": b"0,%d" % len(PASSWD),
            }
        )
        + file("etc/passwd", PASSWD),
        file("etc/passwd", PASSWD + b"a" * (1 << 17)),
        symlink("etc/passwd", "other"),
        directory("etc/passwd"),
        file("etc", PASSWD),
    ],
)
def test_odd_passwd(passwd: bytes, tmp_path: Path) -> None:
    """A file of users that is large, or none, knows nobody."""
    text = ACL.replace("1000", "lisa")
    converted(
        tmp_path,
        layer(file("other", PASSWD), passwd, file("x", records={"SCHILY.acl.access": text})),
    )
    assert acls(tmp_path)["./x"][0] == ""


def test_far_names(tmp_path: Path) -> None:
    """An id that a name stands for is looked at like any other."""
    written = converted(
        tmp_path,
        layer(
            file("etc/group", GROUP),
            directory("d", records={"SCHILY.acl.default": "u::---,g::---,g:far:r,m::r,o::---"}),
        ),
    )
    (warning,) = written.warnings
    assert "'./d/' (an ACL for 70000)" in warning


SETS = bytes([0, 4, 0, 0, 0, 2, 0, 0]) + bytes([1, 0, 0, 0, 3, 0, 0, 0])
REVISION_2 = b"\1\0\0\2" + SETS


@pytest.mark.parametrize(
    ("value", "kept", "said"),
    [
        (REVISION_2, REVISION_2, None),
        (b"\1\0\0\3" + SETS + struct.pack("<I", 0), REVISION_2, None),
        (b"\1\0\0\3" + SETS + struct.pack("<I", 100_000), REVISION_2, "root id 100000"),
        (b"\0\0\0\3" + SETS + b"\0\0\0\1", b"\0\0\0\2" + SETS, "root id 16777216"),
        (b"\1\0\0\3" + SETS, b"\1\0\0\3" + SETS, None),
        (b"\1\0\0\4" + SETS + b"\1\0\0\0", b"\1\0\0\4" + SETS + b"\1\0\0\0", None),
        (b"", b"", None),
    ],
)
def test_capabilities(value: bytes, kept: bytes, said: str | None, tmp_path: Path) -> None:
    """Capabilities for a foreign root become those of any root, and a warning says so."""
    attributes = {"security.capability": value, "user.a": b"1", "user.z": b"2"}
    written = converted(
        tmp_path,
        layer(file("a", b"1", xattrs=attributes), hardlink("b", "a"), file("c")),
    )
    found = {one.name: one.xattrs for one in members(decompressed(tmp_path / OUT))}
    assert found[b"./a"] == {b"security.capability": kept, b"user.a": b"1", b"user.z": b"2"}
    assert found[b"./c"] == {}
    if said is None:
        assert written.warnings == ()
    else:
        (warning,) = written.warnings
        assert warning.startswith("capabilities of revision 3")
        assert f"'./a' ({said})" in warning


DEVICES = layer(
    directory("dev"),
    member("dev/null", tarfile.CHRTYPE, device=(1, 3)),
    member("dev/initctl", tarfile.FIFOTYPE),
    directory("dev/deep", uid=70_000),
)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([file("app/x", uid=197_609, gid=197_121)], "'./app/x' (197609:197121); give"),
        ([directory("srv", gid=65_536)], "'./srv/' (0:65536); give"),
        ([symlink("link", "a", uid=65_536)], "'./link' (65536:0); give"),
        ([file("a", uid=65_536), hardlink("b", "a")], "ACLs: './a' (65536:0); give"),
        ([file("big", uid=3_000_000_000)], "'./big' (3000000000:0); give"),
        ([directory("dev", uid=65_536)], "'./dev/' (65536:0); give"),
        (
            [file("a", records={"SCHILY.acl.access": ACL.replace("1000", "70000")})],
            "'./a' (an ACL for 70000); give",
        ),
        (
            [directory("a", records={"SCHILY.acl.default": ACL.replace("1000", "70000")})],
            "'./a/' (an ACL for 70000); give",
        ),
        ([member("etc/null", tarfile.CHRTYPE, device=(1, 3))], "'./etc/null' (character device)"),
        ([member("sda", tarfile.BLKTYPE, device=(8, 0))], "'./sda' (block device); leave"),
        ([member("dev", tarfile.CHRTYPE, device=(1, 3))], "'./dev' (character device); leave"),
        (
            [file(f"a{nth}", uid=65_536 + nth) for nth in range(9)],
            "'./a0' (65536:0), './a1' (65537:0), './a2' (65538:0) and 6 more; give",
        ),
    ],
)
def test_obstacles(members: list[bytes], said: str, tmp_path: Path) -> None:
    """What no unprivileged container can be made from is named, and refused by strict options."""
    written = converted(tmp_path, layer(*members))
    (warning,) = written.warnings
    assert warning.startswith("no unprivileged container")
    assert said in warning
    assert not written.is_suitable
    (tmp_path / OUT).unlink()
    with pytest.raises(ImageError) as refused:
        converted(tmp_path, layer(*members), strict=True)
    assert said in str(refused.value)
    assert not (tmp_path / OUT).exists()


@pytest.mark.parametrize(
    "layers",
    [
        [DEVICES],
        [layer(directory("./", uid=70_000), file("a", uid=65_535, gid=65_535))],
        [layer(file("a", uid=70_000)), layer(whiteout("a"))],
        [layer(file("a", uid=70_000)), layer(file("a"))],
        [layer(file("a"), hardlink("b", "a", uid=70_000), member("c", tarfile.FIFOTYPE))],
        [layer(file("a", records={"SCHILY.acl.access": ACL.replace("1000", "65535")}))],
    ],
)
def test_no_obstacles(layers: list[Layer], tmp_path: Path) -> None:
    """What is left out of an extraction, or is not in the template any more, is no obstacle."""
    written = converted(tmp_path, *layers, strict=True)
    assert (written.warnings, written.is_suitable) == ((), True)


def test_oci_format(tmp_path: Path) -> None:
    """In an archive, devices and fifos outside ./dev are told of, and owners wherever they are."""
    things = layer(
        member("run/fifo", tarfile.FIFOTYPE),
        member("etc/null", tarfile.CHRTYPE, device=(1, 3)),
    )
    written = converted(tmp_path, DEVICES, things, form=Format.OCI)
    owners, empty = written.warnings
    assert "ACLs: './dev/deep/' (70000:0); give" in owners
    assert "'./etc/null' (character device), './run/fifo' (fifo); use" in empty
    assert not written.is_suitable
    written = converted(tmp_path, things, form=Format.OCI, strict=True)
    assert (len(written.warnings), written.is_suitable) == (1, True)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ({"User": "1000:1000"}, "(User '1000:1000')"),
        ({"User": "app", "WorkingDir": "/srv", "StopSignal": "SIGINT", "Env": ["A=b"]},
         "(User 'app', WorkingDir '/srv', StopSignal 'SIGINT')"),
        ({"Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3", "WorkingDir": "/x"},
         "(WorkingDir '/x')"),
        ({"Entrypoint": ["/sbin/init"], "StopSignal": "SIGRTMIN+3", "User": "root"}, None),
        ({"User": "0:0", "WorkingDir": "/", "Entrypoint": ["/bin/app"]}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_lost_startup(runtime: dict[str, object], said: str | None, tmp_path: Path) -> None:
    """What a rootfs template cannot say of how its image is run is told; an archive says it."""
    written = converted(tmp_path, layer(file("a")), runtime=runtime, strict=True)
    if said is None:
        assert written.warnings == ()
    else:
        (warning,) = written.warnings
        assert said in warning
        assert 'use the format "oci"' in warning
    assert converted(tmp_path, layer(file("a")), form=Format.OCI, runtime=runtime).warnings == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="tar sets owners")
def test_gnu_tar(tmp_path: Path) -> None:
    """GNU tar, called as Proxmox VE calls it, sets the ACLs, and nothing inherits them."""
    converted(
        tmp_path,
        layer(
            directory(
                "d", mode=0o2775, records={"SCHILY.acl.access": ACL, "SCHILY.acl.default": ACL}
            ),
            directory("d/inside"),
            file("d/inside/file", b"1"),
            file("d/lost", b"1", mode=0o675, records={"SCHILY.acl.access": NAMED}),
        ),
    )
    root = tmp_path / "root"
    root.mkdir()
    tar = shutil.which("tar") or "tar"
    arguments = ("--zstd", "-p", "--numeric-owner", "--acls", "--skip-old-files")
    subprocess.run([tar, "xf", tmp_path / OUT, *arguments, "-C", root], check=True)
    try:
        entries = [(1, 7, NONE), (2, 7, 1000), (4, 5, NONE), (16, 7, NONE), (32, 5, NONE)]
        wanted = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        for kind in ("access", "default"):
            assert os.getxattr(root / "d", f"system.posix_acl_{kind}") == wanted
    except OSError as exc:
        pytest.skip(f"this file system has no ACLs: {exc}")
    assert (root / "d").stat().st_mode & 0o7777 == 0o2775
    for name, mode in (("d/inside", 0o755), ("d/inside/file", 0o644), ("d/lost", 0o655)):
        assert os.listxattr(root / name) == []
        assert (root / name).stat().st_mode & 0o7777 == mode
