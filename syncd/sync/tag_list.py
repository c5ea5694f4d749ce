"""Which tags of a repository are watched now: those given by name, and those a list of tags names.

A list that cannot be read keeps nobody from the tags given by name, and the conditions say so.  Of
ten thousand tags that match a pattern the highest are watched, and that is told.

To find the newest by version costs no request beyond the list.  To find those whose images were
made last, each tag that matches is resolved each time, and the documents of its image are read once
for as long as the tag means it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

import structlog

from syncd.config import ImageSettings, newest_versions
from syncd.errors import ImageError, NotFoundError, StoppedError, SyncdError
from syncd.oci import Descriptor, Digest, Platform, Reference, Repository, read_image
from syncd.sync.conditions import Failed
from syncd.sync.context import Running
from syncd.sync.executors import Executors
from syncd.sync.recorder import ConditionRecorder

log = structlog.stdlib.get_logger()

_UNKNOWN = datetime.min.replace(tzinfo=UTC)
"""When an image was made that does not tell."""

_Meaning = tuple[Digest, Platform]
"""What a tag means, and the platform whose image of it is wanted."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The watched tags of a repository.

    With a `fault`, a list of tags could not be read: then `tags` has those given by name.
    `warnings` are sentences on matching tags that are not watched.
    """

    tags: list[Reference]
    fault: SyncdError | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """What an image's rules take of a list of tags.

    `tags` are all that match, `wanted` is how many of them are to be watched or compared, and
    `highest` are those within the bound.
    """

    tags: list[str]
    wanted: int
    highest: list[str]


class TagLists:
    """Lists tags.  Lives in one event loop; `open_repository` gives the way to a registry."""

    def __init__(
        self,
        running: Running,
        executors: Executors,
        conditions: ConditionRecorder,
        open_repository: Callable[[Reference], Repository],
    ) -> None:
        self._running = running
        self._executors = executors
        self._conditions = conditions
        self._open = open_repository
        self._beyond: set[Reference] = set()
        self._creations: dict[Reference, dict[_Meaning, datetime | None]] = {}

    async def all(self, repository: Reference) -> list[str]:
        """Return every tag that the registry lists; raise RegistryError."""
        opened = self._open(repository)
        return await self._executors.looking.run(repository.registry, opened.tags)

    async def watched(self, repository: Reference) -> Listing:
        """Return the watched tags as they are now."""
        images = self._running.config.images_of(repository)
        tags = dict.fromkeys(tag for settings in images for tag in settings.fixed_tags)
        fault: SyncdError | None = None
        warnings: tuple[str, ...] = ()
        if any(settings.has_patterns for settings in images):
            most = self._running.config.limits.tags
            try:
                listed = await self.all(repository)
                found = await self._executors.looking.run(
                    repository.registry, _found, images, listed, most
                )
                chosen = await self._chosen(repository, images, found)
            except StoppedError:
                raise
            except SyncdError as exc:
                fault = exc
                await self._executors.ledger(self._conditions.not_listed, repository, exc)
            else:
                there = dict.fromkeys([*tags, *chain.from_iterable(each.tags for each in found)])
                tags.update(dict.fromkeys(chain.from_iterable(chosen)))
                counted = (f.tags for f, i in zip(found, images, strict=True) if i.rules.newest)
                overtaken = set(chain.from_iterable(counted)) - tags.keys()
                warnings = self._told(repository, max(each.wanted for each in found), most)
                await self._executors.ledger(self._conditions.listed, repository, there, overtaken)
        return Listing([repository.with_tag(tag) for tag in tags], fault, warnings)

    async def _chosen(
        self, repository: Reference, images: Sequence[ImageSettings], found: Sequence[_Found]
    ) -> list[list[str]]:
        """Return which of the matching tags are watched.

        Raise RegistryError where images have to be compared and cannot be read.
        """
        chosen: list[list[str]] = []
        seen: set[_Meaning] = set()
        for settings, each in zip(images, found, strict=True):
            newest, tags = settings.rules.newest, each.highest
            if newest is not None and newest.by_creation:
                tags = await self._by_creation(repository, tags, settings.platforms[0], seen)
                tags = tags[-newest.count :]
            chosen.append(tags)
        known = self._creations.get(repository, {})
        for meaning in list(known):
            if meaning not in seen:
                known.pop(meaning, None)
        return chosen

    async def _by_creation(
        self, repository: Reference, tags: list[str], platform: Platform, seen: set[_Meaning]
    ) -> list[str]:
        """Return the tags of images, that of the image that was made last at the end.

        `seen` gets what the tags mean now.
        """
        opened = self._open(repository)
        known = self._creations.setdefault(repository, {})

        def look(tag: str) -> datetime | None:
            reference = repository.with_tag(tag)
            try:
                top = opened.resolve(reference)
            except NotFoundError:  # it was deleted since the list was read
                return None
            meaning = (top.digest, platform)
            seen.add(meaning)
            try:
                return known[meaning]
            except KeyError:
                made = known[meaning] = _creation(opened, reference, top, platform)
                return made

        run = self._executors.looking.run
        made = await asyncio.gather(*(run(repository.registry, look, tag) for tag in tags))
        dated = [(at, by_number(tag), tag) for at, tag in zip(made, tags, strict=True) if at]
        return [tag for *_, tag in sorted(dated)]

    def _told(self, repository: Reference, found: int, most: int) -> tuple[str, ...]:
        """Return a sentence on tags beyond the bound; the log has it once."""
        if found <= most:
            self._beyond.discard(repository)
            return ()
        warning = (
            f"{found} tags of {repository} match, which is beyond the bound of {most} "
            "(limits.tags): only the highest are watched; narrow the pattern, or raise the bound"
        )
        if repository not in self._beyond:
            log.warning("tags passed over", reference=str(repository), warning=warning)
            self._beyond.add(repository)
        return (warning,)

    async def all_watched(self, repository: Reference) -> Listing:
        """Return the watched tags as they are now; raise what kept a list from being read.

        That is a failure of the tags given by name, too, since nobody looks at them then.
        """
        listing = await self.watched(repository)
        if listing.fault is None:
            return listing
        failed = dict.fromkeys(self._running.targets, Failed.of(listing.fault, blind=True))
        await self._executors.ledger(
            self._conditions.record, [(tag, failed) for tag in listing.tags]
        )
        raise listing.fault


def _found(images: Iterable[ImageSettings], listed: Sequence[str], most: int) -> list[_Found]:
    """Return what each image takes of a list of tags.

    This takes about 20 ms for a thousand tags, and is not for the event loop.
    """
    found = []
    for settings in images:
        tags = list(filter(settings.rules.meet, listed))
        newest, wanted = settings.rules.newest, tags
        if newest is not None and not newest.by_creation:
            wanted = newest_versions(tags, newest.count)
        found.append(_Found(tags, len(wanted), _highest(wanted, most)))
    return found


def _highest(tags: list[str], most: int) -> list[str]:
    """Return at most so many tags: the highest, numbers compared as numbers (`v10` after `v9`)."""
    return tags if len(tags) <= most else sorted(tags, key=by_number)[-most:]


def _creation(
    repository: Repository, reference: Reference, top: Descriptor, platform: Platform
) -> datetime | None:
    """Read when an image was made; None for what is no image of the platform, which is told."""
    try:
        return read_image(repository, top, platform).created or _UNKNOWN
    except ImageError as exc:
        log.warning("tag passed over", reference=str(reference), reason=str(exc))
        return None


def by_number(tag: str) -> list[tuple[int, str]]:
    """Return a key that sorts tags as people count: `v9` before `v10`."""
    parts = re.split(r"([0-9]+)", tag)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
