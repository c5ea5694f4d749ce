"""`GET /`: the status page, made of what the ledger says now.  It needs no token, and no script."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime

from aiohttp import web

from syncd.config import Config, next_time
from syncd.sync import LogLine, conditions_now, log_of
from syncd.web.backend import Backend
from syncd.web.overview import (
    JOBS_MAX,
    TAGS_MAX,
    Overview,
    by_state,
    gauges,
    repositories,
    standings,
    troubles,
)
from syncd.web.page import status_page, status_policy

_WORDS_MAX = 8  # of a filter
_FILTER_MAX = 200  # characters


class StatusPage:
    """The route of the page."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/", self.show)]

    async def show(self, request: web.Request) -> web.Response:
        """Return the page; with `q`, only the watched tags that have each of its words."""
        words = request.query.get("q", "")[:_FILTER_MAX].lower().split()[:_WORDS_MAX]
        page = await self._backend.executors.read_soon(self._page, tuple(words))
        policy = {"Content-Security-Policy": status_policy()}
        response = web.Response(body=page, content_type="text/html", headers=policy)
        response.charset = "utf-8"
        response.enable_compression()  # a thousand tags are a megabyte
        return response

    def _page(self, words: tuple[str, ...]) -> bytes:
        return status_page(self._overview(words)).encode()

    def _overview(self, words: tuple[str, ...]) -> Overview:
        """Gather what the page tells.  Blocking."""
        backend, ledger = self._backend, self._backend.ledger
        config, now = backend.live.config, datetime.now(UTC)
        conditions = conditions_now(config, ledger.conditions.all())
        vouched = ledger.vouched.by_digest()
        tags = standings(config, conditions, ledger.figures.templates(), vouched)
        wanted = [tag for tag in tags if tag.matches(words)]
        running, waiting, ended = by_state(ledger.board.newest(4 * JOBS_MAX))
        runs = ledger.figures.runs()
        return Overview(
            now=now,
            host=os.uname().nodename,
            words=words,
            watches=bool(config.image or tags),
            repositories=repositories(config, wanted[:TAGS_MAX], every=not words),
            counts=Counter(tag.standing for tag in tags),
            left_out=max(0, len(wanted) - TAGS_MAX),
            troubles=troubles(tags),
            running=running,
            progress=backend.activity.progress(),
            waiting=waiting,
            waiting_in_all=ledger.board.waiting(),
            history=ended,
            logs={record.job.id: self._log(record.job.id) for record in ended},
            sweep=_next_sweep(config, runs.get("sweep"), now),
            weekly=next_time(config.schedule.weekly, runs.get("weekly", now)),
            gauges=gauges(config, backend.metrics.usage, ledger.figures.storages()),
        )

    def _log(self, job: str) -> list[LogLine]:
        """Return the log of a job; the last lines of one that just ended may be in memory."""
        return log_of(job, self._backend.logs, self._backend.ledger.logs.of)


def _next_sweep(config: Config, last: datetime | None, now: datetime) -> datetime | None:
    """Return when the next sweep is due, counted from when the last one began."""
    every = config.schedule.sweep
    return None if every is None else max(now, (last or now) + every)
