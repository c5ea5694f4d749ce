"""The entrance for people's scripts: sync on demand, jobs, images, containers, a status page.

Everything below `/api` wants the bearer token.  What works on a registry or target happens in
jobs; a request only starts one, or waits for one it asked for.
"""

from __future__ import annotations

import hmac
import html
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from typing import Any

import structlog
from aiohttp import web

from syncd import __version__
from syncd.container import Container, Order
from syncd.errors import (
    ConfigError,
    ImageError,
    InvalidReferenceError,
    NotFoundError,
    PublishError,
    RequestError,
    StillRunningError,
    SyncdError,
)
from syncd.job import Cause, JobRecord, SyncJob
from syncd.launch import Launch
from syncd.ledger import Ledger
from syncd.notify import Notices
from syncd.reference import Reference
from syncd.sync import Sync
from syncd.template import Template
from syncd.worker import Worker

log = structlog.stdlib.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PULL_TIMEOUT = 1800.0
_JOBS_SHOWN = 100
_REFS_MAX = 1000


class Api:
    """The routes below `/api/v1`, and those that need no token."""

    def __init__(
        self, sync: Sync, worker: Worker, launch: Launch, ledger: Ledger, notices: Notices
    ) -> None:
        self._sync = sync
        self._worker = worker
        self._launch = launch
        self._ledger = ledger
        self._notices = notices

    def routes(self) -> list[web.RouteDef]:
        """Return what this entrance answers to."""
        return [
            web.post("/api/v1/sync", self.sync),
            web.get("/api/v1/jobs", self.jobs),
            web.get("/api/v1/jobs/{id}", self.job),
            web.get("/api/v1/images", self.images),
            web.get("/api/v1/resolve", self.resolve),
            web.post("/api/v1/containers", self.create),
            web.get("/api/v1/openapi.json", self.openapi),
            web.get("/healthz", self.healthy),
            web.get("/readyz", self.ready),
            web.get("/metrics", self.metrics),
            web.get("/", self.page),
        ]

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only the token's holder below `/api`, and tell our errors as JSON."""
        try:
            if request.path.startswith("/api/"):
                token = self._sync.config.server.api_token()
                if token is None:
                    return _error(503, "no API token is configured; set server.api_token_file")
                # A header may hold any bytes; they come as surrogates (PEP 383).
                given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
                if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                    return _error(401, "the bearer token is missing or wrong")
            return await handler(request)
        except (InvalidReferenceError, RequestError) as exc:
            return _error(400, str(exc))
        except NotFoundError as exc:
            return _error(404, str(exc))
        except StillRunningError as exc:
            return _error(504, str(exc))
        except ConfigError as exc:
            log.error("request not answered", path=request.path, error=str(exc))
            return _error(503, "syncd's configuration is at fault; its log says how")
        except SyncdError as exc:
            upstream = 502 if isinstance(exc, PublishError | ImageError) else 500
            return _error(503 if exc.temporary else upstream, str(exc))

    async def sync(self, request: web.Request) -> web.Response:
        """Start jobs for `refs`, or for everything watched."""
        body = await _body(request)
        asked = body.get("refs", [body.get("ref")])
        unknown = set(body) - {"refs", "ref"}
        if unknown:
            return _error(400, f"unknown keys: {', '.join(sorted(unknown))}; there is: refs")
        if not body:
            references: Iterable[Reference] = [i.reference for i in self._sync.config.image]
        elif (
            isinstance(asked, list)
            and 0 < len(asked) <= _REFS_MAX
            and all(isinstance(one, str) for one in asked)
        ):
            references = [self._wanted(one) for one in asked]
        else:
            return _error(400, f"refs is not a list of 1 to {_REFS_MAX} references")
        jobs = self._worker.submit(references, Cause.API)
        records = [self._ledger.job(job.id) for job in jobs]
        return web.json_response({"jobs": [job_json(r) for r in records if r]}, status=202)

    async def jobs(self, request: web.Request) -> web.Response:
        """Return the newest jobs."""
        text = request.query.get("limit", str(_JOBS_SHOWN))
        if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
            return _error(400, "limit is not a number from 1 to 1000")
        return web.json_response({"jobs": [job_json(r) for r in self._ledger.jobs(int(text))]})

    async def job(self, request: web.Request) -> web.Response:
        """Return one job."""
        record = self._ledger.job(request.match_info["id"])
        if record is None:
            return _error(404, "there is no such job")
        return web.json_response(job_json(record))

    async def images(self, _: web.Request) -> web.Response:
        """Return what is watched, and every template that is published."""
        watched = [
            {"repository": i.repository, "tags": i.tags, "platform": i.platform, "keep": i.keep}
            for i in self._sync.config.image
        ]
        templates = [template_json(template) for template in self._ledger.templates()]
        return web.json_response({"watched": watched, "templates": templates})

    async def resolve(self, request: web.Request) -> web.Response:
        """Return the volume ids of a reference; with `pull=1` bring it first if it is missing."""
        reference = Reference.parse(request.query.get("ref", "")).with_default_tag()
        if request.query.get("pull", "0") in ("1", "true", "yes"):
            found = await self._launch.ensure(reference, Cause.API, within=_PULL_TIMEOUT)
        else:
            found = await self._sync.find(reference)
        if not found.volumes:
            return _error(404, f"{reference} is not cached as it is now; ask with pull=1")
        return web.json_response({"reference": str(reference), "volumes": found.volumes})

    async def create(self, request: web.Request) -> web.Response:
        """Make a container from an image, and wait for it."""
        order = Order.parse(await _body(request))
        container = await self._launch.create(order, Cause.API, within=_PULL_TIMEOUT)
        return web.json_response(container_json(container), status=201)

    async def openapi(self, _: web.Request) -> web.Response:
        """Return the description of this API."""
        return web.json_response(openapi())

    async def healthy(self, _: web.Request) -> web.Response:
        """Say that the process answers."""
        return web.json_response({"status": "ok", "version": __version__})

    async def ready(self, _: web.Request) -> web.Response:
        """Say that the ledger can be read."""
        self._ledger.jobs(1)
        return web.json_response({"status": "ready", "busy": self._worker.busy})

    async def metrics(self, _: web.Request) -> web.Response:
        """Return the metrics for Prometheus."""
        self._notices.lanes.set(self._worker.busy)
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=self._notices.metrics(), headers={"Content-Type": content_type})

    async def page(self, _: web.Request) -> web.Response:
        """Return the status page: templates and the newest jobs."""
        templates = _table(
            ("Reference", "Volume", "Digest", "Published"),
            (
                (t.reference, " ".join(t.volumes), t.digest.encoded[:12], f"{t.created:%F %R}")
                for t in self._ledger.templates()
            ),
        )
        jobs = _table(
            ("Job", "Reference", "Cause", "State", "Outcome", "Message"),
            (
                (
                    r.job.id[:8],
                    r.job.reference,
                    r.job.cause,
                    r.state,
                    r.outcome.result if r.outcome else "",
                    r.outcome.message if r.outcome else "",
                )
                for r in self._ledger.jobs(20)
            ),
        )
        page = files("syncd").joinpath("status.html").read_text("utf-8")
        text = page.replace("{version}", __version__)
        text = text.replace("{templates}", templates).replace("{jobs}", jobs)
        return web.Response(text=text, content_type="text/html")

    def _wanted(self, text: str) -> Reference:
        """Read a reference: a watched repository without tag means all its watched tags."""
        reference = Reference.parse(text)
        return reference if self._sync.config.images_of(reference) else reference.with_default_tag()


def job_json(record: JobRecord) -> dict[str, Any]:
    """Return a job as the API and the command line show it."""
    job: SyncJob = record.job
    outcome = record.outcome
    return {
        "id": job.id,
        "reference": str(job.reference),
        "cause": job.cause,
        "state": record.state,
        "outcome": outcome.result if outcome else None,
        "message": outcome.message if outcome else None,
        "volumes": outcome.volumes if outcome else (),
        "created": job.created.isoformat(),
        "started": record.started.isoformat() if record.started else None,
        "finished": record.finished.isoformat() if record.finished else None,
    }


def template_json(template: Template) -> dict[str, Any]:
    """Return a template with its provenance."""
    return {
        "reference": str(template.reference),
        "target": template.target,
        "volumes": template.volumes,
        "name": template.name,
        "format": template.format,
        "platform": str(template.platform),
        "digest": str(template.digest),
        "manifest_digest": str(template.manifest_digest),
        "config_digest": str(template.config_digest),
        "diff_ids": [str(one) for one in template.diff_ids],
        "file_digest": str(template.file_digest),
        "size": template.size,
        "created": template.created.isoformat(),
        "pinned": template.pinned,
        "syncd_version": template.syncd_version,
    }


def container_json(container: Container) -> dict[str, Any]:
    """Return a container as it was made."""
    return {
        "vmid": container.vmid,
        "node": container.node,
        "hostname": container.hostname,
        "volume": container.volume,
        "ostype": container.ostype,
        "running": container.running,
        "warnings": container.warnings,
    }


def openapi() -> dict[str, Any]:
    """Return the API's description."""
    text = files("syncd").joinpath("openapi.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


async def _body(request: web.Request) -> dict[str, Any]:
    if not request.can_read_body:
        return {}
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError) as exc:  # its charset may be any word
        raise InvalidReferenceError(f"the body is not JSON: {exc!s:.100}") from exc
    if not isinstance(body, dict):
        raise InvalidReferenceError("the body is not a JSON object")
    return body


def _error(status: int, message: str) -> web.Response:
    headers = {"WWW-Authenticate": 'Bearer realm="syncd"'} if status == 401 else None
    return web.json_response({"error": message}, status=status, headers=headers)


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = "".join(f"<th>{one}</th>" for one in heads)
    lines = ("".join(f"<td>{html.escape(str(one))}</td>" for one in row) for row in rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
