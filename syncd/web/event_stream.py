"""Server-sent events: how jobs stand and how far they are, told while that changes.

A stream begins with a snapshot of the newest jobs, also after a reconnection.  Then each job that
changed is told, and how far the running jobs are, at most twice a second.  Nothing is queued for a
listener: a slow one is told less often, by what is true then, and one that takes nothing for the
time of an answer is dropped.  So a listener costs one connection, and there are only so many.  A
stream ends after an hour, so that its listener shows the token again, which may be another by then.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from syncd.sync import JobProgress, job_json, progress_json
from syncd.web.backend import Backend, HttpLimits
from syncd.web.connections import is_gone, taken
from syncd.web.peers import LOOPBACK, address_of
from syncd.web.refusals import busy

JOBS_SHOWN = 100
"""Jobs of a snapshot."""

_AGAIN = 10  # seconds until a refused listener may try again


class EventStreams:
    """`GET /api/v1/events`, for a bounded number of listeners.  Lives in one event loop."""

    def __init__(self, backend: Backend, limits: HttpLimits) -> None:
        self._backend = backend
        self._limits = limits
        self._listeners: Counter[str] = Counter()
        self._over = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/api/v1/events", self.listen)]

    def end(self) -> None:
        """End every stream, and begin none any more: the server stops."""
        self._over.set()

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Tell of jobs until the listener goes, or the server stops."""
        with self._place(address_of(request.remote)) as has_place:
            if not has_place or self._over.is_set():
                return busy("too many listen to events", _AGAIN)
            response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
            response.content_type = "text/event-stream"
            response.charset = "utf-8"
            response.force_close()  # so that a server that stops sees the end
            await response.prepare(request)
            if request.method != "HEAD":
                await self._tell(request, response)
            return response

    @contextmanager
    def _place(self, address: str) -> Iterator[bool]:
        """Take a listener's place while the context lasts, if one is free."""
        limits, listeners = self._limits, self._listeners
        free = listeners.total() < limits.listeners and (
            address == LOOPBACK or listeners[address] < limits.listeners_each
        )
        if not free:
            yield False
            return
        listeners[address] += 1
        try:
            yield True
        finally:
            listeners[address] -= 1
            if not listeners[address]:
                del listeners[address]

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send events until the server stops; raise ConnectionError when the listener is gone."""
        activity, limits = self._backend.activity, self._limits
        told: int | None = None  # the revision that the listener knows
        progress: dict[str, JobProgress] = {}
        quiet = 0.0  # seconds without a word
        clock = asyncio.get_running_loop().time
        end = clock() + limits.listening
        while not self._over.is_set() and clock() < end:
            revision, now = activity.revision, activity.progress()
            text = await self._news(told, progress, now)
            told, progress = revision, now
            quiet = 0.0 if text else quiet
            if quiet >= limits.keep_alive:
                text, quiet = ": alive\n\n", 0.0
            if text:
                async with taken(request, limits.answer):
                    await response.write(text.encode())
            if is_gone(request):
                return
            quiet += await self._pause(revision, running=activity.busy)

    async def _news(
        self, told: int | None, before: dict[str, JobProgress], now: dict[str, JobProgress]
    ) -> str:
        """Return the events on what changed after a revision; without one, a snapshot."""
        ledger, ask = self._backend.ledger, self._backend.executors.ledger_soon
        changed = None if told is None else self._backend.activity.since(told)
        if changed is None:
            records = await ask(ledger.board.newest, JOBS_SHOWN)
            return _event("snapshot", {"jobs": [job_json(r, now.get(r.job.id)) for r in records]})
        records = await ask(ledger.board.of, changed) if changed else []
        text = "".join(_event("job", job_json(r, now.get(r.job.id))) for r in records)
        moved = {job: progress for job, progress in now.items() if before.get(job) != progress}
        if moved:
            views = {job: progress_json(progress) for job, progress in moved.items()}
            text += _event("progress", views)
        return text

    async def _pause(self, revision: int, *, running: bool) -> float:
        """Wait until there may be news, the next sign of life or the end; return how long."""
        loop, limits = asyncio.get_running_loop(), self._limits
        begun = loop.time()
        over = asyncio.ensure_future(self._over.wait())
        changed = asyncio.ensure_future(self._backend.activity.wait(revision))
        try:
            first = {over} if running else {over, changed}
            await asyncio.wait(
                first,
                timeout=limits.pace if running else limits.keep_alive,
                return_when=asyncio.FIRST_COMPLETED,
            )
            rest = begun + limits.pace - loop.time()
            if rest > 0:  # what changes at once is told together
                await asyncio.wait({over}, timeout=rest)
        finally:
            over.cancel()
            changed.cancel()
        return loop.time() - begun


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


STREAMS = web.AppKey("streams", EventStreams)
"""Where an application keeps its streams of events."""
