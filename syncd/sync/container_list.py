"""What was made from which image, and which containers are behind what their tag means now.

A container's description names the image with the digest of its manifest; the registry tells what
the tag means now.  Each tag is asked for once, however many containers were made from it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from syncd.errors import SyncdError
from syncd.oci import Digest, Platform, Reference
from syncd.sync.context import Running
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.platform_choice import Use
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
    listed = [(host, guest) for host, guests in zip(hosts, found, strict=True) for guest in guests]
    tags = TagMeanings(engine)
    meanings = await asyncio.gather(*(tags.of(host, guest) for host, guest in listed))
    return [
        ListedContainer(host.name, guest, fault=guest.fault)
        if guest.origin is None
        else ListedContainer(host.name, guest, fault=str(meaning))
        if isinstance(meaning, SyncdError)
        else ListedContainer(host.name, guest, meaning)
        for (host, guest), meaning in zip(listed, meanings, strict=True)
    ]


class TagMeanings:
    """What tags mean now, each asked for once for a platform.  Lives in one event loop."""

    def __init__(self, engine: SyncEngine) -> None:
        self._engine = engine
        self._asked: dict[tuple[Reference, Platform], asyncio.Task[Digest | SyncdError]] = {}

    async def of(self, host: ContainerHost, guest: FoundContainer) -> Digest | SyncdError | None:
        """Return the digest of the manifest that a container's tag means now, for its platform.

        None where its image has no tag, an error where nobody can tell.
        """
        if guest.origin is None or guest.origin.image.tag is None:
            return None
        tag = guest.origin.tagged
        try:
            platform = await self._engine.lookup.platform_for(
                tag, host, Use(guest.node, guest.arch)
            )
        except SyncdError as exc:
            return exc
        if (tag, platform) not in self._asked:
            self._asked[tag, platform] = asyncio.create_task(self._ask(tag, platform))
        return await self._asked[tag, platform]

    async def _ask(self, tag: Reference, platform: Platform) -> Digest | SyncdError:
        try:
            return await self._engine.lookup.manifest_of(tag, platform)
        except SyncdError as exc:
            return exc
