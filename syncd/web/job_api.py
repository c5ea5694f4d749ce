"""The API of jobs: list them, look at one with its log, cancel it, ask for the same again."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from aiohttp import web

from syncd.sync import (
    Cause,
    JobProgress,
    JobRecord,
    JobView,
    LogLine,
    State,
    job_detail_json,
    job_json,
    log_of,
    soon,
)
from syncd.web.answers import JobsAnswer
from syncd.web.backend import Backend
from syncd.web.callers import CALLER
from syncd.web.refusals import refusal
from syncd.web.submission import submitted

P = ParamSpec("P")
T = TypeVar("T")

_JOBS_SHOWN = 100
_WAIT_MAX = 30  # seconds
_OVER = "the job has ended already"
_ONE_CALLER = "the job was one caller's, who has to ask for it again: its login is gone"
_ELSEWHERE = "the job belongs to a command of another process; end it there"


class JobApi:
    """The routes below `/api/v1/jobs`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/api/v1/jobs", self.jobs),
            web.get("/api/v1/jobs/{id}", self.job),
            web.post("/api/v1/jobs/{id}/cancel", self.cancel),
            web.post("/api/v1/jobs/{id}/retry", self.retry),
        ]

    async def jobs(self, request: web.Request) -> web.Response:
        """Return the newest jobs."""
        text = request.query.get("limit", str(_JOBS_SHOWN))
        if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
            return refusal(400, "limit is not a number from 1 to 1000")
        records = await self._ask(self._backend.ledger.jobs, int(text))
        progress = self._backend.activity.progress()
        views = [job_json(record, progress.get(record.job.id)) for record in records]
        return web.json_response(JobsAnswer(jobs=views))

    async def job(self, request: web.Request) -> web.Response:
        """Return one job with its log; with `wait`, once it ended or these seconds are over."""
        job, wait = request.match_info["id"], request.query.get("wait", "0")
        if not re.fullmatch("[0-9]{1,2}", wait) or int(wait) > _WAIT_MAX:
            return refusal(400, f"wait is not a number of seconds from 0 to {_WAIT_MAX}")
        await self._backend.worker.wait(job, int(wait))
        record, lines = await self._ask(self._with_log, job)
        if record is None:
            return refusal(404, "there is no such job")
        return web.json_response(job_detail_json(record, lines, self._progress(record)))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a job that waits or runs; return it as it ended."""
        job = request.match_info["id"]
        record = await self._ask(self._backend.ledger.job, job)
        if record is None:
            return refusal(404, "there is no such job")
        if record.state is State.DONE:
            return refusal(409, _OVER)
        cancelled = await soon(self._backend.worker.cancel(job))
        ended = await self._ask(self._backend.ledger.job, job) or record
        if not cancelled:
            return refusal(409, _OVER if ended.state is State.DONE else _ELSEWHERE)
        return web.json_response(self._view(ended))

    async def retry(self, request: web.Request) -> web.Response:
        """Look again at what a job looked at; return the job that does."""
        record = await self._ask(self._backend.ledger.job, request.match_info["id"])
        if record is None:
            return refusal(404, "there is no such job")
        if record.job.cause is Cause.CALLER:
            return refusal(409, _ONE_CALLER)
        caller, config = request[CALLER], self._backend.live.config
        caller.permit(config, record.job.reference)
        (job,) = await submitted(
            self._backend.worker, [record.job.reference], partial(caller.login, config)
        )
        made = await self._ask(self._backend.ledger.job, job.id)
        return web.json_response(self._view(made or JobRecord(job, State.QUEUED)), status=202)

    def _with_log(self, job: str) -> tuple[JobRecord | None, list[LogLine]]:
        """Return a job and its log; that of a running job is in memory."""
        ledger = self._backend.ledger
        return ledger.job(job), log_of(job, self._backend.logs, ledger.logs.of)

    def _view(self, record: JobRecord) -> JobView:
        return job_json(record, self._progress(record))

    def _progress(self, record: JobRecord) -> JobProgress | None:
        return self._backend.activity.progress().get(record.job.id)

    async def _ask(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the ledger off the loop; raise LedgerUnavailableError if it is slow."""
        return await self._backend.executors.ledger_soon(act, *args, **kwargs)
