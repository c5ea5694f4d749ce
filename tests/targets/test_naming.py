"""What `targets.naming` promises: names that PVE keeps and the web UI finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncd.errors import ConfigError, PublishError
from syncd.formats import Format
from syncd.oci.manifest import Descriptor, Image, Manifest
from syncd.oci.reference import Digest, Platform, Reference
from syncd.targets.naming import DEFAULT_NAME, check_pattern, file_name, volume_id
from syncd.targets.target import Volume

CONFIG, MANIFEST, TOP = (Digest("sha256", char * 64) for char in "abc")
AMD64 = Platform("linux", "amd64")
IMAGE = Image(
    TOP,
    Manifest(b"", "", Descriptor("", CONFIG, 0), ()),
    MANIFEST,
    CONFIG,
    AMD64,
    (),
    {},
    b"",
)
CONFIG12, DIGEST12 = "a" * 12, "b" * 12


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (
            "ghcr.io/mieweb/opensource-server/base:latest",
            f"ghcr.io_mieweb_opensource-server_base_latest_{CONFIG12}",
        ),
        ("ghcr.io/o/n:v1.2", f"ghcr.io_o_n_v1.2_{CONFIG12}"),
        ("localhost:5000/o/n:x", f"localhost_5000_o_n_x_{CONFIG12}"),
        ("localhost:5000/n:x", f"localhost_5000__n_x_{CONFIG12}"),
        ("debian:13", f"docker.io_library_debian_13_{CONFIG12}"),
        ("[::1]:5000/o/n:x", f"___1__5000_o_n_x_{CONFIG12}"),
        ("a.b/c/d/e/f:x_y", f"a.b_c_d_e_f_x_y_{CONFIG12}"),
        (f"a.b/c/d@sha256:{'d' * 64}", f"a.b_c_d_{'d' * 12}_{CONFIG12}"),
        (f"a.b/c/d:t@sha256:{'d' * 64}", f"a.b_c_d_t_{CONFIG12}"),
    ],
)
def test_default_name(reference: str, name: str) -> None:
    """The default is the web UI's pattern exactly, with both endings."""
    parsed = Reference.parse(reference)
    assert file_name(DEFAULT_NAME, parsed, IMAGE, Format.OCI) == f"{name}.tar"
    assert file_name(DEFAULT_NAME, parsed, IMAGE, Format.ROOTFS) == f"{name}.tar.zst"


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{image}-{digest12}", f"n-{DIGEST12}"),
        ("{image}_{platform}_{config12}", f"n_linux_amd64_{CONFIG12}"),
        ("..{config12}", CONFIG12),
        ("a b/c+d~é{config12}", f"a_b_c_d__{CONFIG12}"),
        ("{{{config12}}}", f"_{CONFIG12}_"),
    ],
)
def test_own_pattern(pattern: str, name: str) -> None:
    """Another pattern is filled in, and becomes characters that PVE keeps; it is never hidden."""
    assert check_pattern(pattern) == pattern
    reference = Reference.parse("ghcr.io/o/n:t")
    assert file_name(pattern, reference, IMAGE, Format.OCI) == f"{name}.tar"


@pytest.mark.parametrize(
    ("platform", "pattern", "ending"),
    [
        ("linux/arm64", DEFAULT_NAME, f"_{CONFIG12}_arm64"),
        ("linux/386", DEFAULT_NAME, f"_{CONFIG12}_i386"),
        ("linux/arm/v7", DEFAULT_NAME, f"_{CONFIG12}_armhf"),
        ("linux/riscv64", DEFAULT_NAME, f"_{CONFIG12}_riscv64"),
        ("linux/arm64", "{config12}_{platform}", f"{CONFIG12}_linux_arm64"),
    ],
)
def test_other_architectures(platform: str, pattern: str, ending: str) -> None:
    """A template that is not for amd64 ends in its architecture, in Proxmox VE's words."""
    reference = Reference.parse("ghcr.io/o/n:t")
    image = replace(IMAGE, platform=Platform.parse(platform))
    assert file_name(pattern, reference, image, Format.OCI).endswith(f"{ending}.tar")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{image}_{tag}", "no digest"),
        ("", "no digest"),
        ("{config12", "malformed"),
        ("}{config12}", "malformed"),
        ("{config12}{nonsense}", "unknown fields: nonsense"),
        ("{config12}{}", "unknown fields"),
        ("{config12}{0}", "unknown fields: 0"),
        ("{config12}{image.__class__}", "unknown fields"),
        ("{config12}{image[0]}", "unknown fields"),
        ("{config12:d}", "only names"),
        ("{config12:>300}", "only names"),
        ("{config12!r}", "only names"),
        ("{config12:{image}}", "only names"),
    ],
)
def test_bad_pattern(pattern: str, message: str) -> None:
    """A pattern that could not be filled in, or would need overwriting, is refused when read."""
    with pytest.raises(ConfigError, match=message):
        check_pattern(pattern)


def test_longest_name() -> None:
    """A name of 255 characters is taken, one more is not."""
    reference = Reference.parse(f"a.b/n:{'t' * 128}")
    rest = "{tag}{config12}"
    room = 255 - 128 - 12 - len(".tar")
    assert len(file_name("x" * room + rest, reference, IMAGE, Format.OCI)) == 255
    with pytest.raises(PublishError, match=r"256 characters.*shorter name pattern"):
        file_name("x" * (room + 1) + rest, reference, IMAGE, Format.OCI)


def test_volume() -> None:
    """A volume id is PVE's, and gives the file's name back."""
    assert volume_id("cephfs", "a.tar") == "cephfs:vztmpl/a.tar"
    assert Volume("cephfs:vztmpl/a.tar", 1).name == "a.tar"
