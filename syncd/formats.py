"""The two template formats, and the file endings by which Proxmox VE tells them apart."""

from __future__ import annotations

import enum


class Format(enum.StrEnum):
    """What a template file is."""

    ROOTFS = "rootfs"
    OCI = "oci"

    @property
    def suffix(self) -> str:
        """The file's ending: PVE tells the formats apart by it."""
        return ".tar.zst" if self is Format.ROOTFS else ".tar"
