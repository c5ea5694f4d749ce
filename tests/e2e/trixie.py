"""Debian 13's skopeo and buildah, in a root file system of their own: this machine may be older.

They are entered by chroot, with /proc of their own, so network and devices are this machine's; what
they read and write lies in `Trixie.folder`, which they call `/srv`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.command import CACHE, making, run
from tests.e2e.debian import debian_root

PACKAGES = ("skopeo", "buildah", "netavark", "ca-certificates")
CHUNKED = ("--dest-compress-format", "zstd:chunked")


_ENVIRONMENT = "PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root"


class Trixie:
    """The programs, of these packages.

    The root file system is unpacked once; `folder` is emptied by `empty`.
    """

    def __init__(self, packages: tuple[str, ...] = PACKAGES) -> None:
        tar = debian_root(packages)
        self.root = CACHE / tar.stem
        self.folder = self.root / "srv"
        with making(self.root) as missing:
            if missing:
                growing = self.root.with_name(f"growing-{self.root.name}")
                shutil.rmtree(growing, ignore_errors=True)
                growing.mkdir(parents=True)
                run("tar", "-xpf", tar, "-C", growing, "--exclude=./dev/*", "--numeric-owner")
                growing.rename(self.root)

    def empty(self) -> None:
        """Remove what the programs read and wrote."""
        run("find", self.folder, "-mindepth", "1", "-delete")

    def run(self, *argv: str) -> str:
        """Run a program; return what it printed."""
        # buildah wants its root to be a mount point.
        enter = f'''mount --bind "$0" "$0" && cd "$0" && mount -t proc proc proc &&
            mount --rbind /sys sys && mount --rbind /dev dev &&
            exec env -i {_ENVIRONMENT} chroot . "$@"'''
        return run("unshare", "--mount", "sh", "-c", enter, self.root, *argv, timeout=600)

    def push(self, layout: Path, name: str, reference: str, *options: str) -> None:
        """Push an image of a layout to a registry on loopback, its layers recompressed."""
        place = self.folder / layout.name
        if not place.exists():
            run("cp", "-al", layout, place)
        source, target = f"oci:/srv/{layout.name}:{name}", f"docker://{reference}"
        self.run("skopeo", "copy", "-q", "--dest-tls-verify=false", *options, source, target)
