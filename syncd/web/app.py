"""Everything that is answered over HTTP, as one application."""

from __future__ import annotations

from aiohttp import web

from syncd.events import SENDERS
from syncd.web.api import Api
from syncd.web.backend import Backend, HttpLimits
from syncd.web.bodies import BODIES, Bodies
from syncd.web.browsers import protect
from syncd.web.callers import CALLERS, Callers, members_group
from syncd.web.connections import Runner
from syncd.web.deliveries import Deliveries
from syncd.web.event_stream import STREAMS, EventStreams
from syncd.web.guard import Guard
from syncd.web.job_api import JobApi
from syncd.web.senders import SenderEntrance
from syncd.web.status import StatusPage
from syncd.web.upkeep import Upkeep


def application(backend: Backend, limits: HttpLimits | None = None) -> web.Application:
    """Return the application that serves deliveries, the API and the status page."""
    limits = limits or HttpLimits()
    app = web.Application(client_max_size=limits.body, middlewares=[Guard(backend, limits).admit])
    app.on_response_prepare.append(protect)
    app[BODIES] = Bodies(limits)
    app[CALLERS] = Callers(backend.live.config.socket, members_group())
    app[STREAMS] = streams = EventStreams(backend, limits)
    parts = (Deliveries(backend), Api(backend), JobApi(backend), Upkeep(backend), streams)
    for part in (*parts, StatusPage(backend)):
        app.add_routes(part.routes())
    for sender in SENDERS:
        app.add_routes(SenderEntrance(backend, sender).routes())
    return app


def http_runner(app: web.Application, limits: HttpLimits | None = None) -> web.AppRunner:
    """Return the runner that serves the application; whoever sets it up cleans it up."""
    return Runner(app, limits or HttpLimits(), app[STREAMS].end)
