"""From a reference to a running container: the template ensured, then the container made from it.

What is not in the storage yet is brought by the worker, so that any number of requests for one
reference share one pull.  A request that only asks where a template is changes nothing.

A caller with a login of its own shares nothing: the registry is asked with that login before
anything is told, and the pull is the caller's own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from syncd.convert import lost_startup
from syncd.errors import (
    PublishError,
    RequestError,
    StillRunningError,
    StoppedError,
    TargetUnavailableError,
)
from syncd.formats import Format
from syncd.oci import CallerLogin, Reference, read_image
from syncd.sync.container_list import ListedContainer, list_containers
from syncd.sync.context import Running, SyncContext
from syncd.sync.engine import SyncEngine
from syncd.sync.executors import Executors
from syncd.sync.idempotency import IdempotentRequests
from syncd.sync.job import Cause, Outcome, Result, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.platform_choice import ANYWHERE, Use, placed
from syncd.sync.presence import Presence
from syncd.sync.views import container_json
from syncd.sync.worker import Worker
from syncd.targets import (
    Container,
    ContainerHost,
    ContainerRequest,
    Origin,
    PublishedImage,
    Startup,
    Volume,
)

log = structlog.stdlib.get_logger()


class ContainerCreator:
    """Ensures templates and makes containers from them.  Lives in the worker's event loop."""

    def __init__(
        self,
        running: Running,
        ledger: Ledger,
        engine: SyncEngine,
        worker: Worker,
        executors: Executors,
    ) -> None:
        self._running = running
        self._ledger = ledger
        self._engine = engine
        self._worker = worker
        self._executors = executors
        self._once = IdempotentRequests(ledger, executors)

    async def ensure(
        self,
        reference: Reference,
        cause: Cause,
        *,
        target: str | None = None,
        within: float | None = None,
        use: Use = ANYWHERE,
        login: CallerLogin | None = None,
    ) -> tuple[str, ...]:
        """Ensure that what a reference means now is published; return the volume ids.

        Published everywhere, or in the named target; of several platforms the one for this use.
        Raise PublishError when the reference's job
        fails, StillRunningError when the job takes longer than `within` seconds; the job goes on.
        """
        return (await self._ensured(reference, cause, target, within, use, login=login))[1]

    async def create(
        self,
        request: ContainerRequest,
        cause: Cause,
        *,
        within: float | None = None,
        login: CallerLogin | None = None,
        mark: str | None = None,
        again: bool = False,
    ) -> Container:
        """Make a container from an image, bringing its template first if it is missing.

        The container carries `mark`, or one of its own.  With `again`, a container that carries
        the mark already is completed and returned.

        Raise RequestError when no target, or more than one, could be meant, and for a profile
        that is not configured; else as `ensure` and `ContainerHost.create`.  `within` bounds the
        wait for the template alone.
        """
        request = self._completed(request)
        host = self._host(request)
        use = Use(request.node)
        presence, volumes = await self._ensured(
            request.ref, cause, host.name, within, use, login=login
        )
        with self._engine.sparing(volumes):
            container = await self._executors.creating.run(
                self._make, request, host, presence, volumes, login, mark=mark, again=again
            )
        log.info("created", vmid=container.vmid, node=container.node, volid=container.volume)
        return container

    async def create_once(
        self,
        key: str,
        body: Mapping[str, Any],
        request: ContainerRequest,
        cause: Cause,
        *,
        within: float | None = None,
        login: CallerLogin | None = None,
    ) -> Mapping[str, Any]:
        """Do what `create` does, once for a key; return the container as JSON.

        `body` is the request as it was sent; see `IdempotentRequests.answer`.  A `login` has to
        open the image also where the answer is known: to know a key is no right to the image.
        """
        if login is not None:
            await self._engine.prove(request.ref, login)

        async def make(mark: str, again: bool) -> Mapping[str, Any]:
            made = await self.create(
                request, cause, within=within, login=login, mark=mark, again=again
            )
            return container_json(made)

        return await self._once.answer(key, body, make)

    async def listed(self, *, every: bool = False) -> list[ListedContainer]:
        """Return the containers that syncd made; see `list_containers`."""
        return await list_containers(
            self._running, self._ledger, self._engine, self._executors, every=every
        )

    async def _ensured(
        self,
        reference: Reference,
        cause: Cause,
        target: str | None,
        within: float | None,
        use: Use,
        *,
        login: CallerLogin | None,
    ) -> tuple[Presence, tuple[str, ...]]:
        """Ensure that what a reference means now is published; return where, and volume ids."""
        if login is None:
            presence = await self._engine.find_for_use(reference, target, use)
        else:
            presence = await self._engine.find(reference, target, use, login=login)
        if presence.volumes:
            return presence, presence.volumes
        outcome = await self._brought(reference, cause, within, login)
        presence = await self._engine.find(reference, target, use, login=login)
        if presence.volumes:
            return presence, presence.volumes
        if outcome.failed or outcome.result is Result.CANCELLED:
            raise (TargetUnavailableError if outcome.temporary else PublishError)(outcome.message)
        # Some place could not be reached, and is made up at the next sweep.
        return presence, outcome.volumes

    async def _brought(
        self,
        reference: Reference,
        cause: Cause,
        within: float | None,
        login: CallerLogin | None,
    ) -> Outcome:
        """Let the worker bring a reference up to date; return how that went."""
        if login is None:
            (job,) = await self._worker.submit([reference], cause)
        else:
            job = SyncJob(reference, Cause.CALLER, login=login)
            await self._worker.submit_alone(job)
        try:
            async with asyncio.timeout(within):
                return await self._worker.finished(job)
        except TimeoutError as exc:
            raise StillRunningError(f"job {job.id} is still running", "ask for it later") from exc

    def _completed(self, request: ContainerRequest) -> ContainerRequest:
        """Return the request with the options of the profile that it names."""
        if request.profile is None:
            return request
        profiles = {profile.name: profile for profile in self._running.config.profile}
        if request.profile not in profiles:
            raise RequestError(
                f"there is no profile {request.profile!r:.80}",
                f"there is: {', '.join(profiles)}" if profiles else "add a [[profile]]",
            )
        return request.over(profiles[request.profile])

    def _host(self, request: ContainerRequest) -> ContainerHost:
        """Choose the cluster that the container is made in."""
        targets = self._engine.context(request.ref).targets
        hosts = {target.name: target for target in targets if isinstance(target, ContainerHost)}
        names = ", ".join(hosts)
        if not hosts:
            raise RequestError(
                f"no target of {request.ref} makes containers", 'add a [[target]] of type "proxmox"'
            )
        if request.target is None and len(hosts) > 1:
            raise RequestError(f"{request.ref} goes to several clusters", f"name a target: {names}")
        host = hosts.get(request.target or names)
        if host is None:
            raise RequestError(
                f"{request.ref} goes to no cluster named {request.target!r:.80}",
                f"there is: {names}",
            )
        return host

    def _of_platform(
        self, context: SyncContext, host: ContainerHost, presence: Presence
    ) -> tuple[str, ...]:
        """Return what was published of the image for the platform of a context."""
        return tuple(
            volid
            for template in self._ledger.templates(context.reference, host.name)
            if (template.digest, template.platform) == (presence.digest, context.platform)
            for volid in template.volumes
        )

    def _is_for_another(self, context: SyncContext, host: ContainerHost, volume: Volume) -> bool:
        """Tell whether a volume is known to be for another platform than containers are made of."""
        template = self._ledger.made(host.name, volume.name)
        return template is not None and template.platform != context.platform

    def _make(
        self,
        request: ContainerRequest,
        host: ContainerHost,
        presence: Presence,
        volids: tuple[str, ...],
        login: CallerLogin | None,
        *,
        mark: str | None,
        again: bool,
    ) -> Container:
        """Make the container from the volumes that the host holds."""
        context, nodes = placed(
            self._engine.context(request.ref, host.name, login), host, Use(request.node)
        )
        volids = (*volids, *self._of_platform(context, host, presence))
        template_format = context.format_for(host)
        volumes = tuple(
            volume
            for volume in host.volumes()
            if volume.volid in volids
            and volume.name.endswith(template_format.suffix)
            and not self._is_for_another(context, host, volume)
        )
        pinned = replace(request.ref, digest=presence.digest)
        top = context.repository.resolve(pinned)
        image = read_image(context.repository, top, context.platform)
        pinned = replace(request.ref, digest=image.manifest_digest)
        origin = Origin(pinned, mark or secrets.token_hex(8))
        startup = Startup.of(image)
        if template_format is Format.ROOTFS:
            startup = replace(startup, warnings=(*startup.warnings, *lost_startup(image)))
        published = PublishedImage(volumes, template_format, startup, origin, nodes)
        try:
            made = host.create(request, published, context.progress, again=again)
        except StoppedError as exc:
            raise TargetUnavailableError(
                f"syncd stopped while container {request.hostname} was being made in "
                f"target {host.name!r}",
                "Proxmox VE goes on with it: look there before you ask again",
            ) from exc
        self._ledger.containers.record(host.name, made.vmid)
        return made
