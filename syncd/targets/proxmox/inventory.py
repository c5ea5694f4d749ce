"""The containers of a cluster, and the image that each was made from.

`GET /cluster/resources` lists every container that the token may see, in one answer; only a
container's configuration has its description, which tells the image.  So the configurations are
read, several at a time, and of those containers alone that are asked for.  Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from syncd.errors import PublishError
from syncd.targets.container import FoundContainer
from syncd.targets.origin import Origin
from syncd.targets.proxmox.answers import ContainerConfig, Resource
from syncd.targets.proxmox.client import Client

_AT_A_TIME = 8
"""Configurations that are read at a time."""


def guests(
    client: Client, among: Collection[int] | None = None, hostname: str | None = None
) -> list[FoundContainer]:
    """Return containers by their VMIDs: all, or those of some VMIDs, or of one host name.

    A container whose configuration cannot be read has no origin but a fault.  Raise PublishError
    when the cluster cannot be asked.
    """
    found = [
        resource
        for resource in client.get("cluster/resources", list[Resource], type="vm")
        if resource["type"] == "lxc"
        and (among is None or resource.get("vmid") in among)
        and hostname in (None, resource.get("name"))
    ]
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="guests") as pool:
        read = [*pool.map(lambda resource: _guest(client, resource), found)]
    return sorted(read, key=lambda guest: guest.vmid)


def _guest(client: Client, resource: Resource) -> FoundContainer:
    vmid, node = resource.get("vmid", 0), resource.get("node", "")
    config: ContainerConfig = {}
    fault = ""
    try:
        config = client.get(f"nodes/{node}/lxc/{vmid}/config", ContainerConfig)
    except PublishError as exc:
        fault = str(exc)
    return FoundContainer(
        vmid=vmid,
        node=node,
        hostname=resource.get("name", ""),
        running=resource.get("status") == "running",
        origin=Origin.parse(config.get("description", "")),
        lock=config.get("lock", ""),
        fault=fault,
        arch=config.get("arch", ""),
    )
