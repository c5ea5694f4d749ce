"""Which of an image's platforms is meant: the one that runs where its template is to be used.

A container needs the platform of the node that it is on or goes to.  A token that lacks Sys.Audit
is not told what the nodes are; then the architecture that an existing container is configured for
counts.  That alone would not do: Proxmox VE falls back to amd64 where it finds no shell to look at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from syncd.errors import RequestError
from syncd.oci import Platform
from syncd.sync.context import SyncContext
from syncd.targets import ContainerHost, Target, architecture_of


@dataclass(frozen=True, slots=True)
class Use:
    """Where a template is to be used: on a node, by a container of an architecture; or anywhere.

    The words for architectures are those of Proxmox VE.
    """

    node: str | None = None
    arch: str = ""


ANYWHERE = Use()


def placed(
    context: SyncContext, target: Target, use: Use
) -> tuple[SyncContext, frozenset[str] | None]:
    """Return a context of the platform to take in a target, and the nodes that run it; None is any.

    Of several platforms it is the first that runs on the node, or on any; where the target does not
    tell what its nodes are, the first that the container may be of, else the first.  Raise
    RequestError where none runs there.
    """
    platforms = context.settings.platforms
    if len(platforms) == 1 or not isinstance(target, ContainerHost):
        return context, None
    machines = target.machines()
    if not machines or (use.node and use.node not in machines):
        likely = [platform for platform in platforms if architecture_of(platform) == use.arch]
        return replace(context, platform=[*likely, *platforms][0]), None
    hardware = {
        node: Platform.normal("linux", machine).architecture for node, machine in machines.items()
    }
    for platform in platforms:
        nodes = frozenset(n for n, found in hardware.items() if found == platform.architecture)
        if use.node in nodes or (use.node is None and nodes):
            return replace(context, platform=platform), nodes
    where = f"node {use.node!r}" if use.node else f"any node of {target.name!r}"
    raise RequestError(
        f"no platform of {context.reference} runs on {where}",
        f"there are {', '.join(map(str, platforms))}; name another node",
    )
