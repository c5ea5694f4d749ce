"""The API for scripts: sync on demand, jobs, images, containers; the probes, the metrics.

`syncd.web.guard` lets nobody below `/api` who has no right to be there, and answers errors.  What
changes a target happens in jobs: a request starts a job, or waits for a job that it started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

import structlog
from aiohttp import web

from syncd import __version__
from syncd.errors import LedgerUnavailableError, NotCachedError, RequestError
from syncd.oci import CallerLogin, Reference
from syncd.report import Load
from syncd.sync import (
    BehindOptions,
    Cause,
    Condition,
    JobRecord,
    Named,
    ReplaceOptions,
    Use,
    condition_json,
    conditions_now,
    container_json,
    end_json,
    foreseen,
    job_json,
    listed_json,
    named,
    replaced_behind_json,
    replaced_json,
    templates_json,
)
from syncd.targets import ContainerRequest, Credentials
from syncd.web.answers import (
    ContainersAnswer,
    ForeseenAnswer,
    HealthAnswer,
    ImagesAnswer,
    ReadinessAnswer,
    ResolvedAnswer,
    SubmittedAnswer,
    WatchedAnswer,
)
from syncd.web.backend import Backend
from syncd.web.callers import CALLER
from syncd.web.container_operations import IDEMPOTENCY_KEY
from syncd.web.openapi import api_description
from syncd.web.requests import ResolveRequest, SyncRequest, json_object
from syncd.web.scopes import Scope
from syncd.web.submission import submitted

P = ParamSpec("P")
T = TypeVar("T")

_PULL_TIMEOUT = 1800.0
_ANSWERS = {"0": False, "1": True, "true": True, "yes": True}
_VMID = re.compile(r"[1-9][0-9]{2,8}")

log = structlog.stdlib.get_logger()


class Api:
    """The routes below `/api/v1`, and those that need no token."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the API, the probes and the metrics."""
        return [
            web.post("/api/v1/sync", self.sync),
            web.get("/api/v1/images", self.images),
            web.get("/api/v1/resolve", self.resolve),
            web.post("/api/v1/resolve", self.resolve_by),
            web.get("/api/v1/containers", self.containers),
            web.post("/api/v1/containers", self.create),
            web.post("/api/v1/containers/replace", self.replace_behind),
            web.post("/api/v1/containers/{vmid}/replace", self.replace),
            web.get("/api/v1/openapi.json", self.openapi),
            web.get("/healthz", self.healthy),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def sync(self, request: web.Request) -> web.Response:
        """Start jobs for the references of the body, or for everything watched."""
        body = SyncRequest.parse(await json_object(request))
        self._permit(request, body.references)
        backend, config = self._backend, self._backend.live.config
        meant = Named(())
        if body.each or body.dry_run:
            meant = await named(config, backend.engine, body.references)
            references = [*meant.references]
        elif body.references:
            references = [self._wanted(reference) for reference in body.references]
        else:
            references = [image.reference for image in config.image]
        if body.dry_run:
            ends = await foreseen(backend.engine, meant, self._permitted(request))
            return web.json_response(ForeseenAnswer(ends=[end_json(*end) for end in ends]))
        jobs = await submitted(backend.worker, references, self._permitted(request))
        records = await self._ask(self._records, [job.id for job in jobs])
        failed = [end_json(*end) for end in meant.failed]
        answer = SubmittedAnswer(jobs=[*map(job_json, records)], failed=failed)
        return web.json_response(answer, status=202)

    async def images(self, request: web.Request) -> web.Response:
        """Return what is watched, its conditions, and every template that is published."""
        watched = [
            WatchedAnswer(
                repository=i.repository, tags=i.tags, platform=",".join(i.platform), keep=i.keep
            )
            for i in self._backend.live.config.image
        ]
        conditions = [*map(condition_json, await self._conditions())]
        may_know = request[CALLER].may_know(self._backend.live.config)
        templates = await self._ask(templates_json, self._backend.ledger, may_know)
        return web.json_response(
            ImagesAnswer(watched=watched, conditions=conditions, templates=templates)
        )

    async def resolve(self, request: web.Request) -> web.Response:
        """Return the volume ids of a reference; with `pull=1`, fetch a missing image first.

        Of several platforms they are of the one that runs on `node`, else on any node.
        """
        fields = {
            "ref": request.query.get("ref", ""),
            "pull": _is_asked(request, "pull"),
            "node": request.query.get("node") or None,
        }
        return await self._resolved(request, ResolveRequest.parse(fields))

    async def resolve_by(self, request: web.Request) -> web.Response:
        """Do as `resolve` does, with what the body says, which may have a login."""
        return await self._resolved(request, ResolveRequest.parse(await json_object(request)))

    async def _resolved(self, request: web.Request, wanted: ResolveRequest) -> web.Response:
        reference, use = wanted.ref, Use(wanted.node)
        self._permit(request, [reference])
        login = self._login(request, reference, wanted.credentials)
        if wanted.pull:
            request[CALLER].need(Scope.SYNC, "pull")
            ensure = self._backend.containers.ensure
            volumes = await ensure(reference, Cause.API, within=_PULL_TIMEOUT, use=use, login=login)
        else:
            find = self._backend.engine.find
            volumes = (await find(reference, use=use, login=login)).volumes
        if not volumes:
            raise NotCachedError(reference)
        return web.json_response(ResolvedAnswer(reference=str(reference), volumes=volumes))

    async def containers(self, request: web.Request) -> web.Response:
        """Return the containers that syncd made; with `all=1`, look at every container."""
        every = _is_asked(request, "all")
        listed = await self._backend.containers.listed(every=every)
        return web.json_response(ContainersAnswer(containers=[*map(listed_json, listed)]))

    async def create(self, request: web.Request) -> web.Response:
        """Make a container from an image, and answer when the container exists."""
        body = await json_object(request)
        wanted = ContainerRequest.parse(body)
        self._permit(request, [wanted.ref])
        login = self._login(request, wanted.ref, wanted.credentials)
        key = request.headers.get("Idempotency-Key")
        containers = self._backend.containers
        if key is None:
            made = await containers.create(wanted, Cause.API, within=_PULL_TIMEOUT, login=login)
            return web.json_response(container_json(made), status=201)
        if not re.fullmatch(IDEMPOTENCY_KEY, key):
            raise RequestError("the Idempotency-Key is not 1 to 255 visible characters of ASCII")
        answer = await containers.create_once(
            key, body, wanted, Cause.API, within=_PULL_TIMEOUT, login=login
        )
        return web.json_response(answer, status=201)

    async def replace(self, request: web.Request) -> web.Response:
        """Put a newer image under a container, or beside it, and answer when it is ready."""
        vmid = request.match_info["vmid"]
        if not _VMID.fullmatch(vmid):
            raise RequestError(f"{vmid!r:.80} is no VMID")
        options = ReplaceOptions.parse(await json_object(request))
        roots, permit = self._backend.roots, self._permitted(request)
        if options.side_by_side:
            made = await roots.side_by_side(
                int(vmid), options, Cause.API, permit=permit, within=_PULL_TIMEOUT
            )
            return web.json_response(container_json(made), status=201)
        replaced = await roots.replace(
            int(vmid), options, Cause.API, permit=permit, within=_PULL_TIMEOUT
        )
        return web.json_response(replaced_json(replaced))

    async def replace_behind(self, request: web.Request) -> web.Response:
        """Put a newer image under every container behind its tag, one after the other."""
        options = BehindOptions.parse(await json_object(request))
        behind = await self._backend.roots.replace_behind(
            options, Cause.API, permit=self._permitted(request), within=_PULL_TIMEOUT
        )
        return web.json_response(
            replaced_behind_json(behind), status=200 if behind.error is None else 502
        )

    async def openapi(self, _: web.Request) -> web.Response:
        """Return the description of this API."""
        return web.json_response(api_description())

    async def healthy(self, _: web.Request) -> web.Response:
        """Say that the process answers."""
        return web.json_response(HealthAnswer(status="ok", version=__version__))

    async def ready(self, _: web.Request) -> web.Response:
        """Say that the ledger can be read."""
        await self._ask(self._backend.ledger.jobs, 1)
        return web.json_response(ReadinessAnswer(status="ready", busy=self._backend.worker.busy))

    async def metrics(self, _: web.Request) -> web.Response:
        """Return the metrics for Prometheus."""
        metrics, worker = self._backend.metrics, self._backend.worker
        load = Load(worker.waiting, worker.running)
        try:
            body = await self._backend.executors.read_soon(metrics.exposition, load)
        except LedgerUnavailableError as exc:
            log.error("metrics without the ledger", error=str(exc))
            body = metrics.without_ledger(load)
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _ask(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the ledger off the loop; raise LedgerUnavailableError if it is slow."""
        return await self._backend.executors.ledger_soon(act, *args, **kwargs)

    async def _conditions(self) -> list[Condition]:
        """Return what is true of each watched tag, and of what was watched and is published."""
        rows = await self._backend.executors.read_soon(self._backend.ledger.conditions.all)
        return conditions_now(self._backend.live.config, rows)

    def _records(self, ids: list[str]) -> list[JobRecord]:
        return [record for job in ids if (record := self._backend.ledger.job(job))]

    def _permit(self, request: web.Request, references: Iterable[Reference]) -> None:
        """Raise HTTPForbidden where the caller may not have a registry asked for one of these."""
        for reference in references:
            request[CALLER].permit(self._backend.live.config, reference)

    def _login(
        self, request: web.Request, reference: Reference, given: Credentials | None = None
    ) -> CallerLogin | None:
        """Return what opens a reference for the caller; None where the configuration says that."""
        if given is not None:
            return given.login()
        return request[CALLER].login(self._backend.live.config, reference)

    def _permitted(self, request: web.Request) -> Callable[[Reference], CallerLogin | None]:
        """Return what a reference is asked for with, once it is permitted."""

        def permitted(reference: Reference) -> CallerLogin | None:
            self._permit(request, [reference])
            return self._login(request, reference)

        return permitted

    def _wanted(self, reference: Reference) -> Reference:
        """Return what a reference means: of a watched repository without tag, all watched tags."""
        watched = self._backend.live.config.images_of(reference)
        return reference if watched else reference.with_default_tag()


def _is_asked(request: web.Request, parameter: str) -> bool:
    """Tell whether a query says yes; raise RequestError where it says neither yes nor no."""
    value = request.query.get(parameter, "0")
    if value not in _ANSWERS:
        raise RequestError(f"{parameter} is none of {', '.join(_ANSWERS)}: {value!r:.100}")
    return _ANSWERS[value]
