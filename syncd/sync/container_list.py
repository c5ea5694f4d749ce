"""What was made from which image, and which containers are behind what their tag means now.

A container's description names the image with the digest of its manifest; the registry tells what
the tag means now.  Each tag is asked for once, however many containers were made from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from syncd.errors import SyncdError
from syncd.oci import Digest, Reference
from syncd.sync.context import Running
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.targets import ContainerHost, FoundContainer


@dataclass(frozen=True, slots=True)
class ListedContainer:
    """A container, and what its image's tag means now.

    `current` is None where the image has no tag, or nobody could tell; `fault` then says why.
    """

    target: str
    container: FoundContainer
    current: Digest | None = None
    fault: str = ""

    @property
    def is_behind(self) -> bool | None:
        """Whether the tag means another image now; None where that is not known."""
        origin = self.container.origin
        if origin is None or self.current is None:
            return None
        return origin.image.digest != self.current


async def list_containers(
    running: Running,
    ledger: Ledger,
    engine: SyncEngine,
    executors: Executors,
    *,
    every: bool = False,
) -> list[ListedContainer]:
    """Return the containers that syncd made, by target and VMID.

    Without `every`, those that this ledger knows: one question for the list, and one for each.
    With `every`, also those that another syncd made: one question for each container there is.
    Raise PublishError when a target cannot be asked.
    """

    def ask(host: ContainerHost) -> list[FoundContainer]:
        known = ledger.containers.made(host.name)
        if not known and not every:
            return []
        found = host.containers(None if every else known)
        # What is not listed may be hidden from the token for a while, and is not forgotten.
        others = [guest for guest in found if guest.origin is None and not guest.fault]
        if taken := known & {guest.vmid for guest in others}:
            ledger.containers.forget(host.name, taken)
        return [guest for guest in found if guest.origin or (guest.fault and guest.vmid in known)]

    hosts = [target for target in running.targets.values() if isinstance(target, ContainerHost)]
    found = await asyncio.gather(*(executors.looking.run(host.name, ask, host) for host in hosts))
    tags = {
        guest.origin.tagged
        for guests in found
        for guest in guests
        if guest.origin and guest.origin.image.tag
    }
    meanings = dict(
        zip(tags, await asyncio.gather(*(_meaning(engine, tag) for tag in tags)), strict=True)
    )
    return [
        _listed(host.name, guest, meanings)
        for host, guests in zip(hosts, found, strict=True)
        for guest in guests
    ]


async def _meaning(engine: SyncEngine, reference: Reference) -> Digest | SyncdError:
    """Return the digest of the manifest that a tag means now, or why that is not known."""
    try:
        return await engine.manifest_of(reference)
    except SyncdError as exc:
        return exc


def _listed(
    target: str, container: FoundContainer, meanings: dict[Reference, Digest | SyncdError]
) -> ListedContainer:
    if container.origin is None:
        return ListedContainer(target, container, fault=container.fault)
    meaning = meanings.get(container.origin.tagged)
    if isinstance(meaning, SyncdError):
        return ListedContainer(target, container, fault=str(meaning))
    return ListedContainer(target, container, meaning)
