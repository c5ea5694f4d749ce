"""References that a caller has looked at: together with others, or with the caller's own login."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from syncd.oci import CallerLogin, Reference
from syncd.sync import Cause, SyncJob, Worker, soon


async def submitted(
    worker: Worker,
    references: Iterable[Reference],
    login: Callable[[Reference], CallerLogin | None],
) -> list[SyncJob]:
    """Return a job for each reference, in their order, once all are written down.

    `login` gives what the caller logs in with, or None where the configuration says that: then
    the job is everybody's.  Raise CrowdedError or LedgerError.
    """
    logins = {reference: login(reference) for reference in references}
    shared = [reference for reference, own in logins.items() if own is None]
    jobs = dict(zip(shared, await soon(worker.submit(shared, Cause.API)), strict=True))
    for reference, own in logins.items():
        if own is not None:
            jobs[reference] = SyncJob(reference, Cause.CALLER, login=own)
            await soon(worker.submit_alone(jobs[reference]))
    return [jobs[reference] for reference in logins]
