"""Snapshots of a container: taken before its root is replaced, and deleted when they are done with.

A snapshot keeps the volumes that the container has as root and mount points when it is taken, and
Proxmox VE destroys no volume that a snapshot has.  So a snapshot is taken before the new root is
allocated: of a mount point that a snapshot has, Proxmox VE makes no unused volume any more
(`vmconfig_apply_pending` of PVE::LXC::Config, `snapshot_create` and `snapshot_delete` of
PVE::AbstractConfig).  The old root is its old root, and may be put back by `pct rollback`.

Nothing is ever rolled back here: that takes back what people wrote since.
"""

from __future__ import annotations

from syncd.errors import PublishError, RequestError
from syncd.progress import Advance
from syncd.targets.proxmox import tasks
from syncd.targets.proxmox.answers import GuestFeature, SnapshotEntry
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.guest_config import GuestConfig

_PRESENT = "current"  # the name of what is no snapshot in the list of snapshots
_TASKS = ("vzsnapshot", "vzdelsnapshot")


class Snapshots:
    """The snapshots of the containers of one cluster.  Each method may raise PublishError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def require(self, node: str, vmid: int) -> None:
        """Raise RequestError unless the storages of all its volumes can take a snapshot."""
        path = f"nodes/{node}/lxc/{vmid}/feature"
        if not self._client.get(path, GuestFeature, feature="snapshot").get("hasFeature", False):
            raise RequestError(
                f"container {vmid} cannot have a snapshot: not every storage of its volumes takes "
                "one (a directory, NFS and thick LVM do not), or a folder of the host is mounted",
                f"leave out the snapshot, and make a backup before: vzdump {vmid}",
            )

    def take(self, node: str, vmid: int, name: str, comment: str, advance: Advance) -> None:
        """Take a snapshot of the container, under this name."""
        path = f"nodes/{node}/lxc/{vmid}/snapshot"
        upid = self._client.post(path, snapname=name, description=comment)
        tasks.finish(self._client, upid, f"container {vmid} got no snapshot", advance)

    def settle(self, node: str, vmid: int, advance: Advance) -> None:
        """Wait until no snapshot of the container is being taken or deleted."""
        tasks.settle(self._client, node, vmid, _TASKS, advance)

    def drop(self, node: str, vmid: int, name: str, advance: Advance) -> None:
        """Ensure that the container has no snapshot of this name."""
        self.settle(node, vmid, advance)
        if name not in self._names(node, vmid):
            return
        path = f"nodes/{node}/lxc/{vmid}/snapshot/{name}"
        upid = self._client.delete(path)
        try:
            if upid:
                failing = f"the snapshot {name} of container {vmid} cannot be deleted"
                tasks.finish(self._client, upid, failing, advance)
        except PublishError:
            if name in self._names(node, vmid):  # else an order that was sent twice
                raise

    def release(self, node: str, vmid: int, volume: str, own: str) -> None:
        """Ensure that no snapshot has a volume: `own` is deleted, for another raise PublishError.

        Proxmox VE would forget the key of such a volume, keep the volume, and bring the key back
        when the last of these snapshots is deleted.
        """
        holding = []
        for name in self._names(node, vmid):
            path = f"nodes/{node}/lxc/{vmid}/config"
            kept = GuestConfig(self._client.get(path, dict[str, object], snapshot=name))
            if kept.in_use(volume):
                holding.append(name)
        if others := [name for name in holding if name != own]:
            raise PublishError(
                f"{volume} of container {vmid} stays while a snapshot has it: {', '.join(others)}",
                f"pct delsnapshot {vmid} {others[0]}",
            )
        if own in holding:
            self.drop(node, vmid, own, _quietly)

    def _names(self, node: str, vmid: int) -> list[str]:
        listed = self._client.get(f"nodes/{node}/lxc/{vmid}/snapshot", list[SnapshotEntry])
        return sorted(entry["name"] for entry in listed if entry["name"] != _PRESENT)


def _quietly(_: int) -> None:
    """Hear no progress."""
