"""A piece of work for a command: done with the services of a daemon that listens to nobody.

The state is the daemon's own, and may be in its use meanwhile: what both want is done once, by
whoever comes first.  Nothing is left running when the work is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from syncd.cli import console
from syncd.cli.logs import set_up_logs
from syncd.config import Config
from syncd.oci import Reference
from syncd.progress import Silence
from syncd.service import LiveConfig, Services, assemble
from syncd.sync import Cause, Ended, foreseen, named

T = TypeVar("T")


def run(config: Config, act: Callable[[Services], Coroutine[Any, Any, T]], *, quiet: bool) -> T:
    """Do something that may make jobs; return what it returns, raise what it raises.

    The log is silent, since the command itself tells the end and every warning.
    """

    async def work() -> T:
        with console.progress(quiet=quiet) as progress:
            services = assemble(LiveConfig(config), lambda _: progress or Silence())
            try:
                return await act(services)
            finally:
                await services.close()

    set_up_logs(level=logging.CRITICAL)
    return asyncio.run(work())


async def sync(services: Services, wanted: list[Reference], *, dry_run: bool) -> list[Ended]:
    """Bring what is wanted up to date; without anything, everything watched.

    Return each reference with its outcome, or with None where a dry run found work.
    """
    meant = await named(services.live.config, services.engine, wanted)
    if dry_run:
        return await foreseen(services.engine, meant)
    jobs = await services.worker.submit(meant.references, Cause.CLI)
    ended = [(job.reference, await services.worker.finished(job)) for job in jobs]
    return [*ended, *meant.failed]
