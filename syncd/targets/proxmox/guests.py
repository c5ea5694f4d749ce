"""Containers of a cluster as they are now: where each is, whether it runs, how it is configured.

Only asks, and changes nothing.
"""

from __future__ import annotations

from syncd.errors import PublishError
from syncd.targets.proxmox.answers import GuestInterface, GuestStatus, Resource
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.guest_config import GuestConfig
from syncd.targets.root_swap import Guest, volume_of


class Guests:
    """Looks at containers.  Each method raises PublishError when the API refuses to tell."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def nodes(self) -> dict[int, str]:
        """Return the node of each container that the token sees, by VMID."""
        return {
            entry["vmid"]: entry["node"]
            for entry in self._listed()
            if "vmid" in entry and "node" in entry
        }

    def pool(self, vmid: int) -> str | None:
        """Return the pool of a container, or None where it has none or the token sees none."""
        pools = [entry.get("pool") for entry in self._listed() if entry.get("vmid") == vmid]
        return next(iter(pools), None)

    def _listed(self) -> list[Resource]:
        listed = self._client.get("cluster/resources", list[Resource], type="vm")
        return [entry for entry in listed if entry["type"] == "lxc"]

    def find(self, vmid: int) -> Guest | None:
        """Return a container of the cluster, or None where the token sees none of this VMID."""
        node = self.nodes().get(vmid)
        return None if node is None else self._guest(node, vmid)

    def exists(self, vmid: int) -> bool:
        """Tell whether the cluster has this VMID: `nextid` knows it without any privilege."""
        try:
            self._client.get("cluster/nextid", int, vmid=vmid)
        except PublishError as exc:
            if "already exists" in str(exc):
                return True
            raise
        return False

    def config(self, node: str, vmid: int, *, later: bool = False) -> GuestConfig:
        """Return the configuration in force, or with `later` the one after the next start."""
        path = f"nodes/{node}/lxc/{vmid}/config"
        return GuestConfig(self._client.get(path, dict[str, object], current=int(not later)))

    def runs(self, node: str, vmid: int) -> bool:
        """Return whether a container runs."""
        path = f"nodes/{node}/lxc/{vmid}/status/current"
        return self._client.get(path, GuestStatus)["status"] == "running"

    def addresses(self, node: str, vmid: int) -> tuple[str, ...]:
        """Return a running container's addresses, without loopback and link-local ones."""
        listed = self._client.get(f"nodes/{node}/lxc/{vmid}/interfaces", list[GuestInterface])
        return tuple(
            address.partition("/")[0]
            for entry in listed
            if entry["name"] != "lo"
            for address in (entry.get("inet"), entry.get("inet6"))
            if address and not address.lower().startswith("fe80:")
        )

    def _guest(self, node: str, vmid: int) -> Guest:
        config = self.config(node, vmid)
        return Guest(
            vmid,
            node,
            config.text("hostname") or "",
            self.runs(node, vmid),
            config.text("description") or "",
            root=volume_of(config.root),
            arch=config.text("arch") or "",
        )
