"""The way of one job: resolve, pull, flatten, publish, retain.

The only place that hands blocking work to threads.  From the first answer of the registry on,
the digest is pinned; the tag is not read again.  Every step can be repeated after a crash at any
instruction: what is done is found done.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from syncd import __version__
from syncd.blobs import Cache
from syncd.convert import convert
from syncd.errors import PublishError, StorageError, SyncdError
from syncd.job import Outcome, Progress, Result, Stoppable, SyncJob
from syncd.ledger import Ledger
from syncd.manifest import Descriptor, Image, read_image
from syncd.reference import Platform, Reference
from syncd.registry import Registry
from syncd.settings import Config, ImageSettings
from syncd.template import Format, Target, Template, file_name, surplus

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Errand:
    """One reference with everything that is decided about it before the registry is asked."""

    reference: Reference
    settings: ImageSettings
    registry: Registry
    targets: tuple[Target, ...]
    progress: Stoppable

    @property
    def platform(self) -> Platform:
        """The platform whose manifest is wanted."""
        return Platform.parse(self.settings.platform)

    def form_for(self, target: Target) -> Format:
        """Return the format that a target gets."""
        form = self.settings.format
        return target.format() if form == "auto" else Format(form)


class Sync:
    """Brings references up to date, in every target that wants them.

    `watch` gives the progress of a job; setting `stopping` ends running work soon.
    """

    def __init__(
        self,
        config: Config,
        targets: Mapping[str, Target],
        ledger: Ledger,
        stopping: threading.Event,
        watch: Callable[[Reference], Progress],
    ) -> None:
        self.config = config
        self.targets = targets
        self._ledger = ledger
        self._stopping = stopping
        self._watch = watch
        self._cache = Cache(config.state.directory / "cache", config.state.cache_max)
        self._spool = config.state.directory / "spool"
        self._turns: dict[str, asyncio.Lock] = {}

    async def bring(self, job: SyncJob) -> Outcome:
        """Ensure that what the reference means now is published; return how that went."""
        errand = self._errand(job.reference)
        found = await asyncio.to_thread(errand.registry.resolve, errand.reference)
        held = await asyncio.to_thread(self._held, errand, found)
        if held is not None:
            return Outcome(Result.UNCHANGED, f"{found.digest} is published already", held)
        image = await asyncio.to_thread(read_image, errand.registry, found, errand.platform)
        async with self._turn(image):
            outcome = await asyncio.to_thread(self._publish, errand, image)
        await asyncio.to_thread(self._retain, errand)
        return outcome

    async def watched(self, repository: Reference) -> list[Reference]:
        """Return the watched tags of a repository as they are now."""
        tags: dict[str, None] = {}
        for settings in self.config.images_of(repository):
            tags.update(dict.fromkeys(settings.fixed_tags))
            if settings.has_patterns:
                registry = self._errand(repository).registry
                listed = await asyncio.to_thread(registry.tags)
                tags.update(dict.fromkeys(filter(settings.watches, listed)))
        return [repository.with_tag(tag) for tag in tags]

    async def held(self, reference: Reference) -> tuple[str, ...] | None:
        """Return the volume ids of what the reference means now, or None if some are missing."""
        errand = self._errand(reference)
        found = await asyncio.to_thread(errand.registry.resolve, errand.reference)
        return await asyncio.to_thread(self._held, errand, found)

    def _errand(self, reference: Reference) -> Errand:
        settings = self.config.image_for(reference)
        progress = Stoppable(self._watch(reference), self._stopping)
        registry_settings = self.config.registry_for(reference.registry)
        wanted = self.targets if settings.targets is None else settings.targets
        if not wanted:
            raise PublishError(f"there is no target to publish {reference} to", "add a [[target]]")
        return Errand(
            reference,
            settings,
            Registry(reference, registry_settings, progress.pause),
            tuple(self.targets[name] for name in wanted),
            progress,
        )

    def _turn(self, image: Image) -> asyncio.Lock:
        """Let jobs of one image go one after the other: the second finds the first one's file."""
        return self._turns.setdefault(str(image.manifest_digest), asyncio.Lock())

    def _held(self, errand: Errand, found: Descriptor) -> tuple[str, ...] | None:
        """Return the volume ids if every target lists the template of this very digest."""
        volumes: list[str] = []
        for target in errand.targets:
            form = errand.form_for(target)
            for template in self._ledger.templates(errand.reference, target.name):
                same = (template.digest, template.format, template.platform) == (
                    found.digest,
                    form,
                    errand.platform,
                )
                if same and not target.missing(template.name, template.size):
                    volumes += template.volumes
                    break
            else:
                return None
        return tuple(volumes)

    def _publish(self, errand: Errand, image: Image) -> Outcome:
        """Publish the image in each format that is wanted; one failing target stops no other."""
        faults: list[SyncdError] = []
        volumes: list[str] = []
        published = False
        with ExitStack() as stack:
            for target in errand.targets:
                form = errand.form_for(target)
                name = file_name(errand.settings.name, errand.reference, image, form)
                try:
                    there = self._there(target, name, image)
                    if there is None:
                        file, digest = self._file(errand, image, form, name, stack)
                        placed = target.publish(file, name, digest, errand.progress)
                        there = self._record(errand, image, form, target, placed, digest)
                        published = True
                    volumes += there
                except PublishError as exc:
                    faults.append(exc)
        if faults:
            raise PublishError("; ".join(map(str, faults)))
        said = "is published" if published else "was published before"
        result = Result.PUBLISHED if published else Result.UNCHANGED
        return Outcome(result, f"{image.digest} {said}", tuple(volumes))
