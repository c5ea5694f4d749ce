"""The examples do what they say, run as a user runs them."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

import syncd
from examples.own_target import ShellTarget
from syncd.errors import PublishError
from syncd.oci import Digest
from syncd.progress import Silence
from syncd.targets import Volume
from tests.archives import directory, file, hardlink, member, symlink, whiteout
from tests.images import image, layer, write_layout

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Return the name of an image of two layers in a layout."""
    bottom = layer(
        directory("srv", mode=0o1777),
        file("srv/old"),
        file("srv/new\n", b"content", mode=0o4755, uid=1000, gid=65534, mtime=-(10**9)),
        hardlink("srv/same", "srv/new\n"),
        member("srv/disk", b"4", mode=0o660, gid=6, device=(8, 1)),
        file("srv/late", mtime=10**21, form=tarfile.GNU_FORMAT),
    )
    top = layer(whiteout("srv/old"), symlink("srv/link", "../caf\udce9"))
    layout = write_layout(tmp_path / "layout", {"latest": image(bottom, top)})
    return f"oci:{layout}:latest"


def run(name: str, *arguments: object, code: int = 0) -> str:
    """Run an example; return what it prints, or what it complains of when it is to fail."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, bool(done.stderr)) == (code, bool(code)), done.stderr
    return done.stderr if code else done.stdout


def listed(folder: Path) -> list[str]:
    """Return the names of all that is in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def test_all_are_tested() -> None:
    """Each example is run by a test here, and each file says how it is called."""
    here = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in here
        assert f"python examples/{path.name} " in run(path.name, code=1)


def test_image_to_template(source: str, tmp_path: Path) -> None:
    """The template is written in the format that was asked for, and described in one line."""
    for form, start in (("rootfs", b"\x28\xb5\x2f\xfd"), ("oci", b"oci-layout\0")):
        output = tmp_path / form
        printed = run("image_to_template.py", source, output, form)
        content = output.read_bytes()
        assert content.startswith(start)
        assert f"{output}: {len(content)} bytes, {Digest.of(content)}, diff_id sha" in printed
    assert "not an OCI image layout" in run(
        "image_to_template.py", f"oci:{tmp_path}", tmp_path / "x", code=1
    )


def test_list_image(source: str) -> None:
    """Each name of the flattened image is one line, harmless to a terminal."""
    assert run("list_image.py", source).splitlines() == [
        "drwxr-xr-x         0/0          0 1970-01-01 00:00 ./",
        "drwxrwxrwt         0/0          0 2020-09-13 12:26 ./srv/",
        "brw-rw----         0/6        8,1 2020-09-13 12:26 ./srv/disk",
        "-rw-r--r--         0/0          0   @1000000000000 ./srv/late",
        r"lrwxrwxrwx         0/0          0 2020-09-13 12:26 ./srv/link -> ../caf\xe9",
        r"-rwsr-xr-x  1000/65534          7 1969-12-31 23:59 ./srv/new\n",
        r"-rwsr-xr-x  1000/65534          0 1969-12-31 23:59 ./srv/same link to ./srv/new\n",
    ]
    assert run("list_image.py", "oci:none", code=1).startswith("error: none is not")


def test_own_target(source: str, tmp_path: Path) -> None:
    """An image is converted and published, once, into a folder that a shell reaches."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    name = f"{syncd.open_image(source).image.config_digest.encoded[:12]}.tar.zst"
    for _ in range(2):
        printed = run("own_target.py", source, folder, "sh", "-euc")
        assert printed == f"own:vztmpl/{name} {(folder / name).stat().st_size}\n"
        assert listed(folder) == [name]
    plain = zstandard.ZstdDecompressor().stream_reader((folder / name).read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert "./srv/link" in archive.getnames()
    assert "own: " in run("own_target.py", source, tmp_path / "none", code=1)
    assert "cannot be run" in run("own_target.py", source, folder, tmp_path / "none", code=1)


def test_shell_target(tmp_path: Path) -> None:
    """The target keeps the protocol's promises: listed whole or not at all, never overwritten."""
    folder, made = tmp_path / "folder", tmp_path / "made"
    folder.mkdir()
    made.write_bytes(b"template")
    target = ShellTarget("own", str(folder))
    volume = Volume("own:vztmpl/a.tar.zst", 8)
    assert (target.volumes(), target.missing(volume.name, 8)) == ([], ["own"])
    with pytest.raises(PublishError):  # other bytes than promised arrived
        target.publish(made, volume.name, Digest.of(b"other"), Silence())
    assert listed(folder) == []
    assert target.publish(made, volume.name, Digest.of(b"template"), Silence()) == [volume]
    assert target.volumes() == [volume]
    assert (target.missing(volume.name, 8), target.missing(volume.name, None)) == ([], [])
    assert (target.missing(volume.name, 9), target.local(volume.name)) == (["own"], None)
    made.write_bytes(b"another template")
    with pytest.raises(PublishError, match="exists"):
        target.publish(made, volume.name, Digest.of(b"another template"), Silence())
    assert (folder / volume.name).read_bytes() == b"template"
    assert listed(folder) == [volume.name]
    for _ in range(2):
        target.delete(volume)
        assert target.volumes() == []
    assert [result.ok for result in target.check()] == [True]
    folder.rmdir()
    assert [result.ok for result in target.check()] == [False]
