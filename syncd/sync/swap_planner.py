"""The plan of a replacement: which image a container gets, from which template, by which steps.

Registry and host are asked; nothing is changed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from syncd.errors import PublishError, RequestError, SyncdError
from syncd.oci import Image, Reference, read_image
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.platform_choice import Use
from syncd.targets import Guest, Origin, RootHost, RootSwap, Startup, SwapOrder


class SwapPlanner:
    """Plans replacements.  Lives in the worker's event loop."""

    def __init__(self, engine: SyncEngine, executors: Executors) -> None:
        self._engine = engine
        self._executors = executors

    async def wanted(self, host: RootHost, image: Reference, use: Use) -> Reference:
        """Return a published image by the digest of its platform's manifest; raise SyncdError."""
        presence = await self._engine.find(image, host.name, use)
        found = await self._image(host, replace(image, digest=presence.digest), use)
        return replace(image, digest=found.manifest_digest)

    async def plan(
        self,
        host: RootHost,
        guest: Guest,
        image: Reference,
        volids: tuple[str, ...],
        carry: tuple[str, ...] | None,
        *,
        snapshot: bool,
    ) -> RootSwap:
        """Plan the swap to an image that these volumes have; raise RequestError for why not.

        `carry` are the paths to carry over, and `snapshot` tells whether to take one first; see
        `SwapOrder`.
        """
        use = use_of(guest)
        new = Startup.of(await self._image(host, image, use))
        origin = Origin.parse(guest.description)
        old: Startup | None = None
        if origin is not None:
            with suppress(SyncdError):  # a registry need not keep an old image
                old = Startup.of(await self._image(host, origin.image, use))

        def plan() -> RootSwap:
            form = self._engine.context(image, host.name).format_for(host)
            fitting = [
                volume.volid
                for volume in host.volumes()
                if volume.volid in volids
                and volume.name.endswith(form.suffix)
                and volume.node in (None, guest.node)
            ]
            if not fitting:
                raise PublishError(
                    f"node {guest.node} does not have the template of {image}",
                    "the target's storage must be one that the container's node has",
                )
            named = Origin(image, origin.mark if origin else "")
            order = SwapOrder(named, fitting[0], form, new, old, carry, snapshot)
            return host.roots.plan(guest, order)

        return await self._executors.looking.run(host.name, plan)

    async def _image(self, host: RootHost, reference: Reference, use: Use) -> Image:
        """Read the image of the platform for a use that a reference means; raise SyncdError."""
        platform = await self._engine.lookup.platform_for(reference, host, use)

        def read() -> Image:
            repository = self._engine.context(reference).repository
            return read_image(repository, repository.resolve(reference), platform)

        return await self._executors.looking.run(reference.registry, read)


def use_of(guest: Guest) -> Use:
    """Return where a container's template is to be used."""
    return Use(guest.node, guest.arch)


def tag_of(guest: Guest) -> Reference:
    """Return the tag that a container's description names; raise RequestError without one."""
    origin = Origin.parse(guest.description)
    if origin is None:
        raise RequestError(
            f"the description of container {guest.vmid} names no image", "name the reference"
        )
    return origin.tagged
