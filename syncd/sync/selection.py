"""What somebody names, as single tags: one may name a repository, or nothing, which means all.

Commands ask this of the daemon, or without one do it themselves, and tell of each tag by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from syncd.config import Config
from syncd.errors import RequestError, SyncdError
from syncd.oci import CallerLogin, Reference
from syncd.sync.engine import SyncEngine
from syncd.sync.job import Outcome, Result

Ended = tuple[Reference, Outcome | None]
"""A reference and how it ended; None stands for one that a dry run would publish."""


@dataclass(frozen=True, slots=True)
class Named:
    """Single tags and digests; and the repositories whose tags could not all be listed, and why."""

    references: tuple[Reference, ...]
    failed: tuple[tuple[Reference, Outcome], ...] = ()


async def named(config: Config, engine: SyncEngine, wanted: Iterable[Reference]) -> Named:
    """Return what is meant by `wanted`, or by everything watched where nothing is wanted.

    A repository whose tags cannot be listed has failed, and keeps nobody from the others.  Raise
    RequestError where nothing is wanted and nothing is watched.
    """
    meant = [*wanted] or [image.reference for image in config.image]
    if not meant:
        raise RequestError("nothing is watched", "name a reference, or add an [[image]]")
    references: list[Reference] = []
    failed: list[tuple[Reference, Outcome]] = []
    for reference in dict.fromkeys(meant):
        whole = not (reference.tag or reference.digest) and config.images_of(reference)
        if not whole:
            references.append(reference.with_default_tag())
            continue
        listing = await engine.tags.watched(reference)
        references += listing.tags
        if listing.fault is not None:
            end = Outcome(Result.FAILED, str(listing.fault), temporary=listing.fault.temporary)
            failed.append((reference, end))
    return Named(tuple(references), tuple(failed))


LoginOf = Callable[[Reference], CallerLogin | None]
"""Tells what a caller opens an image with; None where the configuration says that.

It may raise where the caller may not have the image asked for.
"""


def configured(_: Reference) -> CallerLogin | None:
    """Return None: the configuration says how to log in."""
    return None


async def foreseen(
    engine: SyncEngine,
    meant: Named,
    login: LoginOf = configured,
) -> list[Ended]:
    """Return how jobs for what is meant would end; none is made.

    `login` gives what the caller would log in with, or None where the configuration says that.

    A job that would publish has no end here: whether that works is not known before.
    """
    ends: list[Ended] = []
    for reference in meant.references:
        end: Outcome | None
        try:
            volumes = await engine.lookup.whole(reference, login(reference))
            end = Outcome(Result.UNCHANGED, "published already", volumes) if volumes else None
        except SyncdError as exc:
            end = Outcome(Result.FAILED, str(exc))
        ends.append((reference, end))
    return [*ends, *meant.failed]
