"""Jobs of single callers, who log in to a registry themselves: what others learn of them.

The ledger and the log of a job are for everybody who may look, so of what a caller's login opened
they are told that it is over, and no more.  The process's own log, which the host's administrator
reads, has it all but the login.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

import structlog

from syncd.errors import CrowdedError
from syncd.sync.job import Outcome, SyncJob

CALLERS_MAX = 64
"""Jobs of callers with logins of their own that wait or run at a time."""
TOLD_ALONE = "how this ended is told to whoever asked for it alone"
"""What everybody else is told of a job for which a caller logged in."""


def admit(others: int) -> None:
    """Raise CrowdedError where so many jobs of callers wait or run that no further one may."""
    if others >= CALLERS_MAX:
        raise CrowdedError(f"{CALLERS_MAX} jobs of callers wait or run", "ask again later")


def as_told(job: SyncJob, outcome: Outcome) -> Outcome:
    """Return an outcome as everybody may know it."""
    if not job.is_private:
        return outcome
    return replace(outcome, message=TOLD_ALONE, volumes=(), warnings=())


def bound(job: SyncJob) -> AbstractContextManager[object]:
    """Have lines of the log name a job: a caller's own by another key, so that no job has them."""
    name = "private_job" if job.is_private else "job"
    return structlog.contextvars.bound_contextvars(
        **{name: job.id, "reference": str(job.reference)}
    )
