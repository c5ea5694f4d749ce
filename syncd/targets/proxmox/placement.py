"""Where a container goes: the node, the storage of its root file system, and the template there.

The node is an online node that has both a storage for root file systems and the template; of
several, the node with the most free memory.  Nothing is changed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from syncd.errors import TargetUnavailableError
from syncd.targets.container import ContainerSpec
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import Node
from syncd.targets.proxmox.storages import ROOT_FOLDERS, Storages
from syncd.targets.target import Volume


def choose(
    storages: Storages,
    access: ClusterAccess,
    request: ContainerSpec,
    volumes: Sequence[Volume],
    runs_on: Collection[str] | None = None,
) -> tuple[str, str, Volume]:
    """Return the storage of the root file system, the node, and the template's volume there.

    With `runs_on` it is one of these nodes.  Where the nodes' free memory is hidden, containers are
    spread over the nodes by their host names.  The storage is the requested or the configured
    storage, else the node's storage with the most free space.  Raise TargetUnavailableError when no
    online node fits, PublishError when the storages cannot be asked or are not for root file
    systems.
    """
    name = request.storage or access.rootfs_storage
    by_node = {volume.node: volume for volume in volumes}
    nodes = storages.nodes()
    fitting = [
        node
        for node in nodes
        if request.node in (None, node)
        and (runs_on is None or node in runs_on)
        and (None in by_node or node in by_node)
    ]
    # The best node is asked first, and mostly alone.
    fitting.sort(key=lambda name: (_free_memory(nodes[name]), _lot(request, name)), reverse=True)
    for node in fitting:
        roots = [p for p in storages.on_node(node, ROOT_FOLDERS, name) if p.active]
        if roots:
            largest = max(roots, key=lambda place: (place.free, place.storage))
            return largest.storage, node, by_node.get(node) or by_node[None]
    storages.holding(ROOT_FOLDERS, name)  # which tells why there is no such storage at all
    where = f"node {request.node!r}" if request.node else "no online node"
    raise TargetUnavailableError(
        f"{where} of target {access.name!r} "
        f"{'does not have' if request.node else 'has'} both the template and a storage "
        "for root file systems",
        "name another node or storage, or bring the node up",
    )


def _lot(request: ContainerSpec, node: str) -> bytes:
    """Return a number that spreads containers evenly over nodes, the same for the same request."""
    return hashlib.sha256(f"{request.hostname}/{node}".encode()).digest()


def _free_memory(node: Node) -> int:
    """Return a node's free memory in bytes; 0 where the token lacks Sys.Audit."""
    return node.get("maxmem", 0) - node.get("mem", 0)
