"""A test double of `pct mount` and `pct unmount`, which have no call of the API.

What they do to the lock is what PVE::CLI::pct does in the package pve-container (read in
https://github.com/proxmox/pve-container, src/PVE/CLI/pct.pm, and `set_lock` and `remove_lock` of
PVE::AbstractConfig): `mount` is refused where there is a lock, and locks; `unmount` unmounts what
is mounted, and then fails where the lock is not `mounted`.  A root is a folder here: that of the
volume which the container has as its root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from syncd.targets.proxmox import mounted_roots
from tests.fakes.pve_cluster import Cluster
from tests.fakes.pve_lxc_config import volume_of


class Pct:
    """The program, for the containers of a cluster; `mounts` is where it mounts them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._volumes = folder / "volumes"
        self.mounts = folder / "lxc"
        self._mounted: dict[Path, Path] = {}
        self.calls: list[str] = []
        self.failure: str | None = None
        """The call that fails, such as `mount 100`; a failed mount leaves the lock."""

    @classmethod
    def installed(cls, cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Pct:
        """Let this process be root on pve1, where this is the program."""
        double = cls(cluster, folder)
        process = SimpleNamespace(**vars(subprocess) | {"run": double.run})
        monkeypatch.setattr(mounted_roots, "subprocess", process)
        monkeypatch.setattr(mounted_roots, "_ROOTS", double.mounts)
        monkeypatch.setattr(mounted_roots, "_STATUS", folder / "status")
        double.capabilities("000001ffffffffff")
        monkeypatch.setattr(socket, "gethostname", lambda: "pve1.example.org")
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        return double

    def capabilities(self, effective: str) -> None:
        """Let this process have these capabilities."""
        (self._volumes.parent / "status").write_text(f"Name:\tsyncd\nCapEff:\t{effective}\n")

    def root(self, volume: str) -> Path:
        """Return the folder that stands for a volume."""
        folder = self._volumes / volume.replace(":", "_")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `pct VERB VMID`, in the place of `subprocess.run`."""
        program, verb, number = command
        assert program == "pct"
        self.calls.append(f"{verb} {number}")
        failure = self._act(verb, int(number))
        return subprocess.CompletedProcess(
            command, 255 if failure else 0, stdout=b"", stderr=failure.encode()
        )

    def _act(self, verb: str, vmid: int) -> str:
        container = self._cluster.containers.get(vmid)
        if container is None:
            return f"Configuration file 'nodes/pve1/lxc/{vmid}.conf' does not exist"
        fails = self.failure == self.calls[-1]
        lock = container.config.get("lock")
        mounted = self.mounts / str(vmid) / "rootfs"
        if verb == "mount":
            if lock:
                return f"CT is locked ({lock})"
            container.config["lock"] = "mounted"
            if fails:
                return "mounting container failed"
            mounted.parent.mkdir(parents=True, exist_ok=True)
            self._mounted[mounted] = self.root(volume_of(container.config["rootfs"]))
            self._mounted[mounted].rename(mounted)
            return ""
        if fails:
            return "umount: target is busy"
        if mounted in self._mounted:
            mounted.rename(self._mounted.pop(mounted))
        if not lock:
            return "no lock found trying to remove 'mounted' lock"
        if lock != "mounted":
            return f"found lock '{lock}' trying to remove 'mounted' lock"
        del container.config["lock"]
        return ""
