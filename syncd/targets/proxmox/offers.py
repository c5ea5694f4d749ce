"""What a cluster offers to a first configuration, seen by root on one of its nodes.

`syncd init` takes its defaults from here.  Nothing is changed, and no token is needed: each
question is a `pvesh`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from syncd.errors import PublishError
from syncd.targets.proxmox import pvesh
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import ClusterStatus
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.storages import ROOT_FOLDERS, TEMPLATES, Storages

_PORT = 8006


@dataclass(frozen=True, slots=True)
class Offer:
    """A storage that could be chosen, with its free space in bytes on the node that has most."""

    name: str
    shared: bool
    free: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a cluster has: the endpoints of its nodes that are online, and its storages.

    The endpoint of this node comes first.  `templates` are the storages for templates and
    `roots` those for root file systems, each list with shared storages first, then by free space.
    """

    endpoints: tuple[str, ...]
    templates: tuple[Offer, ...]
    roots: tuple[Offer, ...]


def on_a_node() -> bool:
    """Tell whether this is root on a Proxmox VE host."""
    return os.geteuid() == 0 and shutil.which(pvesh.PROGRAM) is not None


def survey(access: ClusterAccess) -> Survey:
    """Return what the cluster of this host offers; `access` names no endpoint.

    Raise PublishError where this is not root on a Proxmox VE host, or the host does not answer.
    """
    client = Client(access)
    storages = Storages(client, access)
    nodes = [
        entry
        for entry in client.get("cluster/status", list[ClusterStatus])
        if entry["type"] == "node" and entry.get("online") and entry.get("ip")
    ]
    nodes.sort(key=lambda entry: (not entry.get("local"), entry["name"]))
    return Survey(
        endpoints=tuple(_url(entry["ip"]) for entry in nodes),
        templates=_offers(storages, TEMPLATES),
        roots=_offers(storages, ROOT_FOLDERS),
    )


def _url(address: str) -> str:
    return f"https://[{address}]:{_PORT}" if ":" in address else f"https://{address}:{_PORT}"


def _offers(storages: Storages, content: str) -> tuple[Offer, ...]:
    """Return the active storages for a kind of content; none is no error."""
    try:
        places = storages.holding(content, None)
    except PublishError:
        return ()
    found: dict[str, Offer] = {}
    for place in places:
        known = found.get(place.storage)
        if place.active and (known is None or known.free < place.free):
            found[place.storage] = Offer(place.storage, place.shared, place.free)
    return tuple(sorted(found.values(), key=lambda offer: (not offer.shared, -offer.free)))
