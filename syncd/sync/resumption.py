"""What an earlier run left unfinished: jobs that end now, and those that are taken up again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

import structlog

from syncd.sync.executors import Executors
from syncd.sync.job import ATTEMPTS_MAX, GIVEN_UP, LOGIN_GONE, Cause, Outcome, SyncJob
from syncd.sync.job_queue import JobHandler
from syncd.sync.ledger import Ledger

log = structlog.stdlib.get_logger()


async def unfinished(
    ledger: Ledger,
    executors: Executors,
    mine: Collection[str],
    handler: JobHandler,
    end: Callable[[SyncJob, Outcome], Awaitable[None]],
) -> list[SyncJob]:
    """Return the jobs to take up, oldest first, once those have ended that nobody can go on with.

    These are the jobs of commands that are gone, those of callers, whose logins are gone, and those
    during which the daemon died too often.  Jobs of `mine` are left alone.  Raise LedgerError.
    """
    ask = executors.ledger
    for job in await ask(ledger.end_abandoned):
        log.warning("command interrupted", job=job.id, reference=str(job.reference))
    for job in await ask(ledger.unfinished):
        if job.cause is Cause.CALLER and job.id not in mine:
            await end(job, LOGIN_GONE)
    for job in await ask(ledger.unfinished, ATTEMPTS_MAX):
        if job.id not in mine:
            await handler.give_up(job, GIVEN_UP)
            await end(job, GIVEN_UP)
    return [job for job in await ask(ledger.unfinished) if job.id not in mine]
