"""The `oci` template as other tools read it, held against the image and its `rootfs` template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e import machine, tree
from tests.e2e.command import run
from tests.e2e.conftest import Image
from tests.e2e.daemon import SYNCD
from tests.e2e.image import Layout


@pytest.fixture(params=["base", "app", "small"])
def image(request: pytest.FixtureRequest) -> Image:
    """Return each of the images in turn."""
    chosen: Image = request.getfixturevalue(request.param)
    return chosen


def convert(source: str, output: Path, form: str) -> Path:
    run(SYNCD, "convert", source, output, "--format", form)
    return output


def test_inspected(image: Image, tmp_path: Path) -> None:
    """Skopeo reads the archive, and finds in it what the image says of running it.

    An image whose program is an init, and that names no signal, is halted by an init's signal.
    """
    archive = convert(str(image.layout), tmp_path / "template.tar", "oci")
    source = f"oci-archive:{archive}"
    manifest = json.loads(run("skopeo", "inspect", "--raw", source))
    assert [layer["mediaType"].rpartition("+")[2] for layer in manifest["layers"]] == ["zstd"]
    before = json.loads(run("skopeo", "inspect", "--config", str(image.layout)))
    after = json.loads(run("skopeo", "inspect", "--config", source))
    kept = ("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Volumes", "Labels")
    for key in kept:
        assert after["config"].get(key) == before["config"].get(key), key
    program = before["config"].get("Entrypoint") or before["config"].get("Cmd")
    halt = "SIGRTMIN+3" if program == ["/sbin/init"] else None
    assert after["config"].get("StopSignal") == before["config"].get("StopSignal", halt)
    assert (after["os"], after["architecture"]) == (before["os"], before["architecture"])


def test_same_tree(image: Image, tmp_path: Path) -> None:
    """What umoci unpacks of the archive is the tree of the `rootfs` template and of the image."""
    archive = convert(str(image.layout), tmp_path / "template.tar", "oci")
    rootfs = convert(str(image.layout), tmp_path / "template.tar.zst", "rootfs")
    layout = Layout(tmp_path / "layout")
    # umoci 0.4.7 reads no zstd: skopeo compresses the layer otherwise, which changes no tar.
    gzip = ("--dest-compress", "--dest-compress-format", "gzip")
    run("skopeo", "copy", "--quiet", *gzip, f"oci-archive:{archive}", str(layout))
    unpacked = tree.scan(layout.unpack(tmp_path / "bundle"))
    assert tree.differences(unpacked, tree.scan(machine.unpack(rootfs, tmp_path / "root"))) == []
    assert tree.differences(unpacked, tree.scan(image.rootfs)) == []


def test_converted_again(small: Image, tmp_path: Path) -> None:
    """An archive is a source itself: its `rootfs` template is that of the image, byte for byte."""
    archive = convert(str(small.layout), tmp_path / "template.tar", "oci")
    direct = convert(str(small.layout), tmp_path / "direct.tar.zst", "rootfs")
    again = convert(f"oci-archive:{archive}", tmp_path / "again.tar.zst", "rootfs")
    assert again.read_bytes() == direct.read_bytes()
