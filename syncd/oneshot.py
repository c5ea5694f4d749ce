"""One piece of work for a command: done with the parts of a daemon that listens to nobody.

The state is the daemon's own, and may be in its use meanwhile: what both want is done once, by
whoever comes first.  Nothing is left running when the work is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from syncd import console
from syncd.errors import ConfigError
from syncd.job import Cause, Outcome, Result, Silence
from syncd.parts import Parts, assemble
from syncd.reference import Reference
from syncd.settings import Config
from syncd.sync import Sync
from syncd.template import Template

T = TypeVar("T")


def run(config: Config, act: Callable[[Parts], Coroutine[Any, Any, T]], *, quiet: bool) -> T:
    """Do something that may make jobs; return what it returns, raise what it raises.

    The jobs' log is silent, since the command itself tells the end.
    """

    async def work() -> T:
        with console.progress(quiet=quiet) as progress:
            parts = assemble(config, lambda _: progress or Silence())
            try:
                return await act(parts)
            finally:
                await parts.close()

    console.set_up_logs(level=logging.CRITICAL)
    return asyncio.run(work())


async def sync(
    parts: Parts, refs: list[str], *, dry_run: bool
) -> list[tuple[Reference, Outcome | None]]:
    """Bring what the references name up to date; without any, everything watched.

    Return each with its outcome, or with None where a dry run found work.
    """
    wanted = await _wanted(parts.sync, refs)
    if dry_run:
        found = [(one, (await parts.sync.find(one)).volumes) for one in wanted]
        return [
            (one, Outcome(Result.UNCHANGED, "published already", volumes) if volumes else None)
            for one, volumes in found
        ]
    jobs = parts.worker.submit(wanted, Cause.CLI)
    return [(job.reference, await parts.worker.finished(job)) for job in jobs]


async def prune(parts: Parts, *, dry_run: bool) -> list[Template]:
    """Delete the versions that retention lets go, of every tag; return them."""
    references = dict.fromkeys(one.reference for one in parts.ledger.templates())
    return [
        template
        for reference in references
        for template in await asyncio.to_thread(
            parts.sync.retain, parts.sync.errand(reference), dry_run=dry_run
        )
    ]


async def _wanted(story: Sync, refs: list[str]) -> list[Reference]:
    """Return the references meant: the given ones, or every watched tag of what is watched."""
    given = [Reference.parse(ref) for ref in refs] or [i.reference for i in story.config.image]
    if not given:
        raise ConfigError("nothing is watched", hint="name a reference, or add an [[image]]")
    wanted: list[Reference] = []
    for reference in given:
        whole = not (reference.tag or reference.digest) and story.config.images_of(reference)
        wanted += await story.watched(reference) if whole else [reference.with_default_tag()]
    return wanted
