"""The entrance for GitHub's deliveries: verify, slow down who guesses, write down, answer.

GitHub waits 10 s and never tries again by itself.  Unauthenticated bodies are bounded in size,
number and time.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from syncd.config import GITHUBS_NETWORKS
from syncd.errors import SignatureError
from syncd.events import pushed_by, read_delivery
from syncd.web.backend import Backend
from syncd.web.bodies import BODIES
from syncd.web.clients import client_address, networks
from syncd.web.entrance import Answered, Entrance

_AGAIN = 60  # seconds until the networks may be known

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
        self._check_address(request)
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

    def _check_address(self, request: web.Request) -> None:
        """Raise HTTPForbidden unless deliveries are taken from where a request comes.

        Where GitHub's networks count and are not known yet, it is HTTPServiceUnavailable: an
        allow-list that opens when something fails would be none.
        """
        sources = self._backend.live.config.server.hook_addresses
        if not sources:
            return
        client, known = client_address(request, self._backend), self._backend.hook_networks.known
        own = networks(tuple(source for source in sources if source != GITHUBS_NETWORKS))
        by_github = GITHUBS_NETWORKS in sources
        if client is not None and any(
            client in each for each in (*own, *(known or () if by_github else ()))
        ):
            return
        if by_github and known is None:
            self._entrance.refuse(request, "the networks that GitHub delivers from are not known")
            raise web.HTTPServiceUnavailable(
                reason="syncd does not know yet from where GitHub delivers",
                headers={"Retry-After": str(_AGAIN)},
            )
        self._entrance.refuse(request, "server.hook_addresses has no such address")
        raise web.HTTPForbidden(reason="deliveries are not taken from this address")
