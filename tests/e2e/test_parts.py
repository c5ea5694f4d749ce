"""That the real parts are what the other end-to-end tests take them for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import debian, tree
from tests.e2e.command import attempt
from tests.e2e.conftest import Image
from tests.e2e.image import Layout
from tests.e2e.registry import Registry

ONE_LINE = """\
# deb http://commented.invalid/debian {release} main
deb [signed-by=/usr/share/keyrings/other.gpg] https://other.invalid/packages {release} main
deb [arch=amd64] http://mirror.invalid/debian/ {release} main contrib
deb http://mirror.invalid/debian-security {release}-security main
"""

DEB822 = """\
Types: deb
URIs: http://security.invalid/debian-security
Suites: {release}-security
Components: main

# the archive
Types: deb deb-src
URIs: http://mirror.invalid/debian/
Suites: {release} {release}-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [("sources.list", ONE_LINE), ("sources.list.d/debian.sources", DEB822)],
)
def test_mirror(tmp_path: Path, name: str, content: str) -> None:
    """The Debian archive is found in both forms of apt's sources, among security and others."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content.format(release=debian.release()))
    assert debian.mirror(tmp_path) == "http://mirror.invalid/debian/"


def test_images_hold_what_they_promise(base: Image, app: Image, small: Image) -> None:
    """Neither buildah, GNU tar, skopeo nor umoci lost the oddities that the tests are about."""
    below, above, alone = (tree.scan(each.rootfs / "srv") for each in (base, app, small))
    links = below[b"image/first"]["hard links"]
    assert links == [b"image/first", b"image/second", b"image/third"]
    assert below[b"image/owned"]["owner"] == (54321, 65534)
    assert below[b"image/su"]["mode"] == oct(0o4755)
    assert "security.capability" in str(below[b"image/ping"]["xattrs"])
    assert below[b"image/caf\xe9"]["type"] == "file"
    assert below[b"tar/noted"]["mtime"] == 1_234_567_890_123_456_789
    assert below[b"tar/noted"]["xattrs"] == {"user.note": b"any \x00 bytes \xff"}
    assert below[b"tar"]["mtime"] == 981_173_106_789_012_345
    assert above[b"image/second"]["hard links"] == [b"image/second", b"image/third"]
    assert alone[b"sparse"]["size"] == (8 << 20) + 3
    assert alone[b"foreign"]["owner"] == (4_000_000_000, 123_456)
    assert alone[b"foreign"]["mtime"] == -1_876_543_211
    assert b"tar/removed" not in above
    assert app.layout.layers[: len(base.layout.layers)] == base.layout.layers


def test_tree_differences(tmp_path: Path) -> None:
    """The comparer sees each property that differs, and nothing else."""
    for name in ("a", "b"):
        root = tmp_path / name
        root.mkdir()
        for file in ("mode", "content", "time", "linked", "alone"):
            (root / file).write_text(file)
    ours = tmp_path / "a"
    (ours / "mode").chmod(0o600)
    (ours / "content").write_text("CONTENT")
    (ours / "extra").symlink_to("mode")
    (ours / "alone").unlink()
    (ours / "alone").hardlink_to(ours / "linked")
    found = [
        line.split(" is ")[0].split(": symlink")[0]
        for line in tree.differences(tree.scan(ours), tree.scan(tmp_path / "b"))
        if ": mtime" not in line
    ]
    assert found == [
        "alone: content",
        "alone: hard links",
        "alone: size",
        "content: content",
        "extra",
        "linked: hard links",
        "mode: mode",
    ]


def test_registry_log(registry: Registry, small: Image, tmp_path: Path) -> None:
    """The access log tells what was read since a mark, and nothing from before it."""
    source = f"docker://{small.reference}"
    first = registry.mark()
    attempt("skopeo", "copy", "--src-tls-verify=false", source, f"{Layout(tmp_path / 'copy')}")
    second = registry.mark()
    attempt("skopeo", "inspect", "--tls-verify=false", "--raw", source)
    assert sorted(registry.blobs(first)) == sorted([*small.layout.layers, small.layout.config])
    assert registry.blobs(second) == []
    assert len(registry.requests("GET", "/manifests/latest$", second)) == 1
