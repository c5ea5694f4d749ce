"""The configuration of a container as Proxmox VE answers it, read for a swap of its root.

Pure.  Source of the keys: `GET /nodes/{node}/lxc/{vmid}/config` in the official description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from syncd.errors import RequestError
from syncd.targets.root_swap import volume_of

_DISKS = re.compile(r"rootfs|mp\d+")
_UNUSED = re.compile(r"unused\d+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
_GIB = {"": 2**-30, "K": 2**-20, "M": 2**-10, "G": 1.0, "T": 1024.0}
MOUNT_POINTS, UNUSED_VOLUMES = 256, 256
"""How many `mpN` and `unusedN` a configuration may have (PVE::LXC::Config)."""


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """The options of one container by key; what is not text there is not read."""

    values: Mapping[str, object]

    def text(self, key: str) -> str | None:
        """Return an option as text, None where it is not set."""
        value = self.values.get(key)
        return str(value) if isinstance(value, str | int | float) else None

    def flag(self, key: str) -> bool:
        """Return whether an option is set to 1."""
        return self.text(key) in ("1", "True")

    @property
    def digest(self) -> str:
        """The digest that a change names, so that nobody else's change is overwritten."""
        return self.text("digest") or ""

    @property
    def root(self) -> str:
        """The value of `rootfs`."""
        return self.text("rootfs") or ""

    @property
    def raw_lines(self) -> dict[str, str]:
        """The lines `lxc.KEY: VALUE`, which no call of the API can set."""
        lines = self.values.get("lxc")
        pairs = lines if isinstance(lines, list) else []
        return {str(line[0]): str(line[1]) for line in pairs if len(line) == 2}

    @property
    def options(self) -> dict[str, str]:
        """Every option but the digest, as text."""
        found = {key: self.text(key) for key in self.values if key != "digest"}
        return {key: value for key, value in found.items() if value is not None}

    def unused_key(self, volume: str) -> str | None:
        """Return the `unusedN` that keeps a volume, or None."""
        keys = (key for key in self.values if _UNUSED.fullmatch(key))
        return next((key for key in keys if volume_of(self.text(key) or "") == volume), None)

    def in_use(self, volume: str) -> bool:
        """Return whether a volume is the root or a mount point."""
        disks = (self.text(key) or "" for key in self.values if _DISKS.fullmatch(key))
        return any(volume_of(disk) == volume for disk in disks)

    def free(self, name: str, count: int, taken: int = 0) -> str | None:
        """Return the highest free key of a kind, such as `mp99`; None where none is free.

        `taken` keys of the kind are left free, for what Proxmox VE itself fills from below.
        """
        keys = [key for n in range(count) if (key := f"{name}{n}") not in self.values]
        return keys[-1] if len(keys) > taken else None


def storage_of(root: str) -> str:
    """Return the storage of a root; raise RequestError where the root is no volume of a storage."""
    storage, colon, _ = volume_of(root).partition(":")
    if not colon or storage.startswith("/"):
        raise RequestError(
            f"the root file system {root!r:.200} is no volume of a storage",
            "only a root that Proxmox VE allocated can be replaced",
        )
    return storage


def size_of(root: str) -> int:
    """Return the size of a root in whole GiB, rounded up; raise RequestError where it is hidden."""
    sizes = [part[5:] for part in root.split(",") if part.startswith("size=")]
    found = _SIZE.fullmatch(sizes[0]) if sizes else None
    if found is None or float(found[1]) == 0:
        raise RequestError(
            f"the root file system {root!r:.200} has no size", "give it one: pct rescan"
        )
    return max(1, ceil(float(found[1]) * _GIB[found[2]]))


def root_on(volume: str, size: str, old_root: str) -> str:
    """Return the value of `rootfs` with another volume and size and the old root's options.

    A missing size is not filled in by Proxmox VE, so it is always among them.
    """
    kept = [part for part in old_root.split(",")[1:] if not part.startswith("size=")]
    return ",".join([volume, f"size={size}", *kept])
