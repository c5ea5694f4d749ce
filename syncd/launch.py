"""From a reference to a running container: the template ensured, then the container made from it.

What is not in the storage yet is brought by the worker, so that any number of requests for one
reference share one pull.  A request that only asks where a template is changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from syncd.container import Container, Order, Startup
from syncd.errors import (
    PublishError,
    RequestError,
    StillRunningError,
    TargetUnavailableError,
)
from syncd.job import Cause, Result, StoppedError
from syncd.manifest import read_image
from syncd.proxmox import ProxmoxTarget
from syncd.reference import Reference
from syncd.sync import Found, Sync
from syncd.worker import Worker

log = structlog.stdlib.get_logger()


class Launch:
    """Ensures templates and makes containers from them.  Lives in the worker's event loop."""

    def __init__(self, sync: Sync, worker: Worker) -> None:
        self._sync = sync
        self._worker = worker

    async def ensure(
        self,
        reference: Reference,
        cause: Cause,
        *,
        target: str | None = None,
        within: float | None = None,
    ) -> Found:
        """Ensure that what a reference means now is published: everywhere, or in one target.

        Raise PublishError when its job fails, StillRunningError when that takes longer than
        `within` seconds; the job goes on then.
        """
        found = await self._sync.find(reference, target)
        if found.volumes:
            return found
        (job,) = self._worker.submit([reference], cause)
        try:
            async with asyncio.timeout(within):
                outcome = await self._worker.finished(job)
        except TimeoutError as exc:
            raise StillRunningError(f"job {job.id} is still running", "ask for it later") from exc
        found = await self._sync.find(reference, target)
        if found.volumes:
            return found
        if outcome.result is Result.FAILED:
            raise PublishError(outcome.message)
        # Some place could not be reached, and is made up at the next sweep.
        return replace(found, volumes=outcome.volumes)

    async def create(self, order: Order, cause: Cause, *, within: float | None = None) -> Container:
        """Make a container from an image, bringing its template first if it is missing.

        Raise RequestError when no target, or more than one, could be meant; else as `ensure`
        and `ProxmoxTarget.create`.  `within` bounds the wait for the template alone.
        """
        target = self._target(order)
        found = await self.ensure(order.ref, cause, target=target.name, within=within)
        with self._sync.using(found.volumes):
            container = await asyncio.to_thread(self._make, order, target, found)
        log.info("created", vmid=container.vmid, node=container.node, volid=container.volume)
        return container

    def _target(self, order: Order) -> ProxmoxTarget:
        """Choose the cluster that the container is made in."""
        targets = self._sync.errand(order.ref).targets
        clusters = {one.name: one for one in targets if isinstance(one, ProxmoxTarget)}
        named = ", ".join(clusters)
        if not clusters:
            raise RequestError(
                f"no target of {order.ref} makes containers", 'add a [[target]] of type "proxmox"'
            )
        if order.target is None and len(clusters) > 1:
            raise RequestError(f"{order.ref} goes to several clusters", f"name a target: {named}")
        target = clusters.get(order.target or named)
        if target is None:
            raise RequestError(
                f"{order.ref} goes to no cluster named {order.target!r:.80}", f"there is: {named}"
            )
        return target

    def _make(self, order: Order, target: ProxmoxTarget, found: Found) -> Container:
        """Make the container from the volumes found in the target."""
        errand = self._sync.errand(order.ref, target.name)
        form = errand.form_for(target)
        volumes = [
            one
            for one in target.volumes()
            if one.volid in found.volumes and one.name.endswith(form.suffix)
        ]
        top = errand.registry.resolve(replace(order.ref, digest=found.digest))
        startup = Startup.of(read_image(errand.registry, top, errand.platform))
        try:
            return target.create(order, volumes, form, startup, errand.progress)
        except StoppedError as exc:
            raise TargetUnavailableError(
                f"syncd stopped while container {order.hostname} was being made in "
                f"target {target.name!r}",
                "Proxmox VE goes on with it: look there before you ask again",
            ) from exc
