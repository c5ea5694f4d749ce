"""Container images: built by buildah, GNU tar and umoci, carried by skopeo, unpacked by umoci.

Several producers on purpose: their tars differ (buildah writes whole seconds, GNU tar does not;
buildah writes whiteouts).  buildah keeps everything in a storage of its own below the work folder,
so that images and containers of the machine are neither seen nor touched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.e2e.command import SCRATCH, run


@dataclass(frozen=True)
class Layout:
    """An image as an OCI layout on disk: the folder and the tag in it."""

    folder: Path
    tag: str = "latest"

    def __str__(self) -> str:
        return f"oci:{self.folder}:{self.tag}"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The image's manifest."""
        manifest: dict[str, Any] = json.loads(run("skopeo", "inspect", "--raw", str(self)))
        return manifest

    @property
    def layers(self) -> list[str]:
        """The digests of the layers' blobs, oldest first."""
        return [layer["digest"] for layer in self.manifest["layers"]]

    @property
    def config(self) -> str:
        """The digest of the config."""
        digest: str = self.manifest["config"]["digest"]
        return digest

    @property
    def size(self) -> int:
        """Bytes of all layers as they are stored."""
        return sum(layer["size"] for layer in self.manifest["layers"])

    def unpack(self, bundle: Path) -> Path:
        """Unpack the image with umoci, as root, and return the root file system."""
        run("umoci", "unpack", "--image", f"{self.folder}:{self.tag}", bundle)
        return bundle / "rootfs"

    def push(self, reference: str, *options: str) -> None:
        """Copy the image, byte for byte, to a registry without TLS; `options` are skopeo's."""
        self._copy(f"docker://{reference}", "--preserve-digests", *options)

    def push_as_docker(self, reference: str) -> None:
        """Copy the image to a registry without TLS with Docker's media types for everything."""
        self._copy(f"docker://{reference}", "--format=v2s2")

    def with_zstd(self, folder: Path) -> Layout:
        """Return the same image with layers that are compressed with zstd, below `folder`.

        skopeo compresses what it finds plain, and nothing twice.
        """
        plain, made = folder / "plain", Layout(folder / "zstd", self.tag)
        plain.mkdir(parents=True)
        self._copy(f"dir:{plain}", "--dest-decompress")
        zstd = "--dest-compress-format=zstd"
        run("skopeo", "copy", "--quiet", zstd, f"dir:{plain}", str(made))
        return made

    def archive(self, file: Path) -> None:
        """Write the image as an OCI archive."""
        self._copy(f"oci-archive:{file}")

    def _copy(self, target: str, *options: str) -> None:
        run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options, str(self), target)


def build(folder: Path, reference: str, *options: str, **build_args: str) -> None:
    """Build the Containerfile of `folder` with buildah and push it to a registry without TLS.

    `options` are buildah's.  The layers of an image of that registry below it are not pushed
    again: they are the same blobs.
    """
    args = [word for key, value in build_args.items() for word in ("--build-arg", f"{key}={value}")]
    how = ("--format", "oci", "--layers", "--tls-verify=false", *options)
    _buildah("bud", *how, "--tag", reference, *args, folder)
    _buildah("push", "--quiet", "--tls-verify=false", reference)


def fetch(reference: str, layout: Layout) -> None:
    """Copy an image of a registry without TLS to a layout, blob by blob as it is."""
    source = f"docker://{reference}"
    run("skopeo", "copy", "--quiet", "--src-tls-verify=false", source, str(layout))


def pack(folder: Path, tar: Path) -> Path:
    """Write a layer of what is in `folder`, as GNU tar does it with all it can keep."""
    keep = ["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner"]
    names = sorted(path.name for path in folder.iterdir())
    run("tar", *keep, "-C", folder, "-cf", tar, *names)
    return tar


def create(layout: Layout, *tars: Path) -> None:
    """Make a layout with an image of these layers alone, oldest first."""
    run("umoci", "init", "--layout", layout.folder)
    run("umoci", "new", "--image", f"{layout.folder}:{layout.tag}")
    for tar in tars:
        add_layer(layout, tar)


def add_layer(layout: Layout, tar: Path) -> None:
    """Put a tar on top of an image of a layout, byte for byte as it is (gzipped)."""
    run("umoci", "raw", "add-layer", "--image", f"{layout.folder}:{layout.tag}", tar)


def _buildah(*argv: str | Path) -> None:
    storage = ("--root", SCRATCH / "storage", "--runroot", SCRATCH / "storage-run")
    # Without a container runtime; what a build mounts goes with its namespace, also when it fails.
    how = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}
    run("unshare", "--mount", "buildah", *storage, *argv, env=how)
