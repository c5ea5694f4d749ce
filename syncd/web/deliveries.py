"""The entrance for GitHub's deliveries: verify, slow down who guesses, write down, answer.

GitHub waits 10 s and never tries again by itself.  Unauthenticated bodies are bounded in size,
number and time.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from syncd.errors import SignatureError
from syncd.events import pushed_by, read_delivery
from syncd.web.backend import Backend
from syncd.web.bodies import BODIES
from syncd.web.entrance import Answered, Entrance

log = structlog.stdlib.get_logger()


class Deliveries:
    """`POST /webhooks/github`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._entrance = Entrance(backend, "github")

    def routes(self) -> list[web.RouteDef]:
        """Return what this entrance answers to."""
        return [web.post("/webhooks/github", self.receive)]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one delivery; one that cannot be written down now is to be delivered again."""
        return await self._entrance.receive(request, self._read)

    async def _read(self, request: web.Request) -> Answered:
        secret = self._backend.live.config.server.webhook_secret()
        if secret is None:
            return 503, {"error": "no webhook secret is configured; set server.webhook_secret_file"}
        self._entrance.admit(request)
        async with request.app[BODIES].read(request) as body:
            try:
                delivery = read_delivery(request.headers, body, secret)
            except SignatureError as exc:
                raise self._entrance.wrong(request, str(exc)) from exc
        self._entrance.right(request)
        if delivery.event == "ping":
            log.info("ping", delivery=delivery.id)
            return 200, {"pong": True}
        return await self._entrance.accept(delivery.id, delivery.event, pushed_by(delivery))
