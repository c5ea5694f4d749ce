"""The entrance for GitHub's deliveries: verify, write down, answer; nothing else happens here.

GitHub waits 10 s and never tries again by itself, so an answer needs no more than one flush of
the ledger.  Unauthenticated bodies are bounded in size, number and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from aiohttp import web

from syncd import event
from syncd.errors import EventError, SyncdError
from syncd.job import Cause
from syncd.ledger import Ledger
from syncd.notify import Notices
from syncd.settings import Config
from syncd.worker import Worker

log = structlog.stdlib.get_logger()

_BODIES_AT_A_TIME = 4
_BODY_TIMEOUT = 9.0


class Webhook:
    """`POST /webhooks/github`."""

    def __init__(
        self, config: Callable[[], Config], worker: Worker, ledger: Ledger, notices: Notices
    ) -> None:
        self._config = config
        self._worker = worker
        self._ledger = ledger
        self._notices = notices
        self._bodies = asyncio.Semaphore(_BODIES_AT_A_TIME)

    def routes(self) -> list[web.RouteDef]:
        """Return what this entrance answers to."""
        return [web.post("/webhooks/github", self.receive)]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one delivery; one that cannot be written down now is to be delivered again."""
        try:
            status, answer = await self._answer(request)
        except SyncdError as exc:
            log.error("delivery not accepted", peer=request.remote, error=str(exc))
            status, answer = 503, {"error": "syncd cannot accept deliveries; its log says why"}
        self._notices.deliveries.labels(str(status)).inc()
        return web.json_response(answer, status=status)

    async def _answer(self, request: web.Request) -> tuple[int, dict[str, object]]:
        config = self._config()
        secret = config.server.webhook_secret()
        if secret is None:
            return 503, {"error": "no webhook secret is configured; set server.webhook_secret_file"}
        try:
            async with asyncio.timeout(_BODY_TIMEOUT), self._bodies:
                body = await request.read()
            delivery = event.read(request.headers, body, secret)
        except web.HTTPRequestEntityTooLarge:
            return 413, {"error": f"the body has more than {event.BODY_MAX} bytes"}
        except TimeoutError:
            return 408, {"error": "the body did not arrive in time"}
        except event.SignatureError as exc:
            log.warning("delivery refused", peer=request.remote, error=str(exc))
            return 401, {"error": str(exc)}
        except EventError as exc:
            log.warning("delivery refused", peer=request.remote, error=str(exc))
            return 400, {"error": str(exc)}
        return self._accept(config, delivery)

    def _accept(self, config: Config, delivery: event.Delivery) -> tuple[int, dict[str, object]]:
        """Turn an authentic delivery into jobs."""
        say = log.bind(delivery=delivery.id, event=delivery.event)
        if delivery.event == "ping":
            say.info("ping")
            return 200, {"pong": True}
        if (seen := self._ledger.seen(delivery.id)) is not None:
            say.info("delivery repeated", jobs=seen)
            return 202, {"jobs": seen, "repeated": True}
        pushed = event.pushed(delivery)
        if isinstance(pushed, str):
            say.info("delivery ignored", reason=pushed)
            return 202, {"ignored": pushed}
        concerned = [i.reference for i in config.image if pushed.concerns(i.reference)]
        if not concerned:
            say.info("delivery ignored", reason="no watched repository")
            return 202, {"ignored": "it concerns no watched repository"}
        jobs = self._worker.submit(
            concerned,
            Cause.WEBHOOK,
            delivery=delivery.id,
            settle=config.server.settle.total_seconds(),
        )
        say.info("delivery accepted", jobs=[job.id for job in jobs])
        return 202, {"jobs": [job.id for job in jobs]}
