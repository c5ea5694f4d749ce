"""What the entrances of all senders have in common: answer, count, and write down.

A sender waits some seconds and may never try again, so an answer needs no more than one flush of
the ledger, which is asked off the loop and within a bound.  Who has no right secret or signature is
slowed by address (`syncd.web.attempts`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from syncd.errors import EventError, SyncdError
from syncd.events import Ignored, PushEvent
from syncd.sync import Cause, Counted, Reception, soon
from syncd.web.attempts import Attempts
from syncd.web.backend import Backend
from syncd.web.clients import client_address, counted_as
from syncd.web.connections import CODED, coded
from syncd.web.peers import Seldom
from syncd.web.refusals import http_refusal, refusal

log = structlog.stdlib.get_logger()

_REFUSALS_LOGGED = 20  # a minute

Answered = tuple[int, dict[str, object]]
"""The status and the JSON of an answer."""

Reader = Callable[[web.Request], Awaitable[Answered]]
"""What verifies and reads the deliveries of one sender."""


class Entrance:
    """Answers the deliveries of one sender, whose name the log tells."""

    def __init__(self, backend: Backend, sender: str) -> None:
        self._backend = backend
        self._log = log.bind(sender=sender)
        self._attempts = Attempts(of_deliveries=True, sender=sender)
        self._seldom = Seldom(_REFUSALS_LOGGED)

    def admit(self, request: web.Request) -> None:
        """Raise HTTPTooManyRequests for an address of which nothing is looked at now."""
        wait = self._attempts.unseen(counted_as(request, self._backend))
        if wait is not None:
            raise _slowed(wait)

    def refuse(self, request: web.Request, why: str) -> None:
        """Log, now and then, that a request is refused for its address."""
        if (passed_over := self._seldom()) is not None:
            peer = self._peer(request)
            self._log.warning("delivery refused", peer=peer, error=why, also=passed_over)

    def right(self, request: web.Request) -> None:
        """Hear that a request has the right secret or signature."""
        self._attempts.judged(counted_as(request, self._backend), right=True)

    def wrong(self, request: web.Request, why: str) -> web.HTTPError:
        """Hear that a request has no right secret or signature; return what to raise."""
        wait = self._attempts.judged(counted_as(request, self._backend), right=False)
        return _slowed(wait) if wait else web.HTTPUnauthorized(reason=why)

    async def receive(self, request: web.Request, read: Reader) -> web.Response:
        """Answer with what `read` returns; what cannot be written down is to be delivered again."""
        try:
            status, answer = await self._answer(request, read)
            result = _result(status, answer)
            response = web.json_response(answer, status=status)
        except web.HTTPError as exc:
            response = http_refusal(request, exc)
            result = _result(response.status, {})
        except SyncdError as exc:
            self._log.error("delivery not accepted", peer=self._peer(request), error=str(exc))
            response = refusal(503, "syncd cannot accept deliveries; its log says why")
            result = Reception.FAILED
        self._backend.ledger.tally.add(Counted.DELIVERIES, result)
        return response

    async def accept(
        self, delivery: str | None, event: str, pushed: PushEvent | Ignored
    ) -> Answered:
        """Turn an authentic delivery into jobs.

        Without an id nothing tells that it came before; then it joins the jobs that wait.
        """
        backend, config = self._backend, self._backend.live.config
        delivery_log = self._log.bind(kind=event)
        if delivery is not None:
            delivery_log = delivery_log.bind(delivery=delivery)
            seen = await backend.executors.ledger_soon(backend.ledger.seen, delivery)
            if seen is not None:
                delivery_log.info("delivery repeated", jobs=seen)
                return 202, {"jobs": seen, "repeated": True}
        if isinstance(pushed, Ignored):
            delivery_log.info("delivery ignored", reason=pushed.reason)
            return 202, {"ignored": pushed.reason}
        concerned = [i.reference for i in config.image if pushed.concerns(i.reference)]
        if not concerned:
            delivery_log.info("delivery ignored", reason="no watched repository")
            return 202, {"ignored": "it concerns no watched repository"}
        jobs = await soon(
            backend.worker.submit(
                concerned,
                Cause.WEBHOOK,
                delivery=delivery,
                settle=config.server.settle.total_seconds(),
            )
        )
        delivery_log.info("delivery accepted", jobs=[job.id for job in jobs])
        return 202, {"jobs": [job.id for job in jobs]}

    def _peer(self, request: web.Request) -> str | None:
        """Return who calls, for the log."""
        client = client_address(request, self._backend)
        return request.remote if client is None else str(client)

    async def _answer(self, request: web.Request, read: Reader) -> Answered:
        try:
            return (415, {"error": CODED}) if coded(request) else await read(request)
        except EventError as exc:
            self._log.warning("delivery refused", peer=self._peer(request), error=str(exc))
            return 400, {"error": str(exc)}


def _slowed(wait: float) -> web.HTTPError:
    return web.HTTPTooManyRequests(
        reason="too many wrong secrets came from this address",
        headers={"Retry-After": str(math.ceil(wait))},
    )


def _result(status: int, answer: Mapping[str, object]) -> Reception:
    """Return what became of a delivery that was answered so."""
    if status >= 400:
        return Reception.FAILED if status >= 500 else Reception.REFUSED
    if "repeated" in answer:
        return Reception.REPEATED
    return Reception.ACCEPTED if "jobs" in answer else Reception.IGNORED
