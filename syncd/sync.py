"""The way of one job: resolve, pull, flatten, publish, retain.

The only place that hands blocking work to threads.  From the first answer of the registry on,
the digest is pinned; the tag is not read again.  Every step can be repeated after a crash at any
instruction: what is done is found done.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from syncd import __version__
from syncd.errand import Errand
from syncd.errors import PublishError
from syncd.job import Outcome, Progress, Result, Stoppable, SyncJob
from syncd.ledger import Ledger
from syncd.manifest import Descriptor, Image, read_image
from syncd.reference import Digest, Reference
from syncd.registry import Registry
from syncd.settings import Config
from syncd.stock import File, Stock
from syncd.template import Target, Template, file_name, surplus

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference means now, and the volume ids that hold it: none if a target lacks it."""

    digest: Digest
    volumes: tuple[str, ...]


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
        self._stock = Stock(ledger)
        self._stopping = stopping
        self._in_use: Counter[str] = Counter()
        self._watch = watch
        self._turns: defaultdict[Digest, asyncio.Lock] = defaultdict(asyncio.Lock)

    def tidy(self) -> None:
        """Remove what dead conversions left behind, and files that were kept long enough."""
        self._stock.tidy(self.config)

    async def bring(self, job: SyncJob) -> Outcome:
        """Ensure that what the reference means now is published; return how that went."""
        errand = self.errand(job.reference)
        found = await asyncio.to_thread(errand.registry.resolve, errand.reference)
        try:
            held = await asyncio.to_thread(self._confirmed, errand, found)
        except PublishError:
            held = None  # one target cannot be asked: publishing tells it apart from the others
        if held is not None:
            return Outcome(Result.UNCHANGED, f"{found.digest} is published already", held)
        image = await asyncio.to_thread(read_image, errand.registry, found, errand.platform)
        async with self._turns[image.manifest_digest]:
            outcome = await asyncio.to_thread(self._publish, errand, image)
        await asyncio.to_thread(self.retain, errand)
        return outcome

    async def watched(self, repository: Reference) -> list[Reference]:
        """Return the watched tags of a repository as they are now."""
        tags: dict[str, None] = {}
        for settings in self.config.images_of(repository):
            tags.update(dict.fromkeys(settings.fixed_tags))
            if settings.has_patterns:
                listed = await asyncio.to_thread(self.errand(repository).registry.tags)
                tags.update(dict.fromkeys(filter(settings.watches, listed)))
        return [repository.with_tag(tag) for tag in tags]

    async def held(self, reference: Reference) -> tuple[str, ...] | None:
        """Return the volume ids of what the reference means now, or None if one is missing."""
        errand = self.errand(reference)
        found = await asyncio.to_thread(errand.registry.resolve, errand.reference)
        return await asyncio.to_thread(self._confirmed, errand, found)

    async def find(self, reference: Reference, target: str | None = None) -> Found:
        """Tell what the reference means now and where it lies: everywhere, or in one target.

        Only reads.  Beyond what is `held` it finds files under the right name that somebody else
        put there, as `bring` would.
        """
        errand = self.errand(reference, target)
        top = await asyncio.to_thread(errand.registry.resolve, errand.reference)
        held = await asyncio.to_thread(self._held, errand, top)
        volumes = _volumes(held or ())
        if held is None:
            image = await asyncio.to_thread(read_image, errand.registry, top, errand.platform)
            volumes = await asyncio.to_thread(self._named, errand, image)
        return Found(top.digest, volumes)

    def errand(self, reference: Reference, target: str | None = None) -> Errand:
        """Gather what a reference's job needs, in all of its targets or only in one.

        Raise PublishError when there is no target.
        """
        settings = self.config.image_for(reference)
        progress = Stoppable(self._watch(reference), self._stopping)
        wanted = self.targets if settings.targets is None else settings.targets
        if not wanted:
            raise PublishError(
                f"nothing is configured to publish {reference} to", "add a [[target]]"
            )
        return Errand(
            reference,
            settings,
            Registry(
                reference,
                self.config.registry_for(reference.registry),
                self.config.limits.bounds(),
                pause=progress.pause,
            ),
            tuple(self.targets[name] for name in wanted if target in (None, name)),
            progress,
        )

    @contextmanager
    def using(self, volumes: Iterable[str]) -> Iterator[None]:
        """Keep retention off these volumes, for as long as something is made from them."""
        used = Counter(volumes)
        self._in_use = self._in_use + used
        try:
            yield
        finally:
            self._in_use = self._in_use - used

    def retain(self, errand: Errand, *, dry_run: bool = False) -> list[Template]:
        """Delete what retention lets go of this reference; return it.

        Only what the ledger says syncd made; a file that another reference means too is only
        struck from the ledger for this one.  A target that refuses is a warning, not a failure:
        the new version is published all the same.
        """
        gone = []
        for target in errand.targets:
            versions = self._ledger.templates(errand.reference, target.name)
            shared = {
                other.name
                for other in self._ledger.templates(target=target.name)
                if other.reference != errand.reference
            }
            for template in surplus(versions, errand.settings.keep, self._in_use):
                if template.name in shared:
                    if not dry_run:
                        self._ledger.forget(target.name, template.name, errand.reference)
                elif dry_run or self._delete(target, template):
                    gone.append(template)
        return gone

    def _held(self, errand: Errand, found: Descriptor) -> list[Template] | None:
        """Return each target's template of this very digest, or None if a target lists none.

        By digest it may lie there under any tag of the repository.
        """
        held: list[Template] = []
        reference = errand.reference
        for target in errand.targets:
            wanted = (reference.name, errand.form_for(target), errand.platform)
            row = None if reference.digest else reference
            for template in self._ledger.templates(row, target.name):
                same = (template.reference.name, template.format, template.platform) == wanted
                same &= found.digest in (template.digest, template.manifest_digest)
                if same and not target.missing(template.name, template.size):
                    held.append(template)
                    break
            else:
                return None
        return held

    def _confirmed(self, errand: Errand, found: Descriptor) -> tuple[str, ...] | None:
        """Return the volume ids of what is held; the ledger learns what the tag went back to."""
        held = self._held(errand, found)
        if held is None:
            return None
        for template in held:
            versions = self._ledger.templates(errand.reference, template.target)
            if template in versions[1:]:
                self._ledger.record(replace(template, created=datetime.now(UTC)))
        return _volumes(held)

    def _named(self, errand: Errand, image: Image) -> tuple[str, ...]:
        """Return the volume ids if every target lists a finished file of the image's name."""
        volumes: list[str] = []
        for target in errand.targets:
            form = errand.form_for(target)
            name = file_name(errand.settings.name, errand.reference, image, form)
            sizes = {one.name: one.size for one in self._ledger.templates(target=target.name)}
            unfinished = name not in sizes and self._ledger.made(target.name, name) is not None
            if unfinished or target.missing(name, sizes.get(name)):
                return ()
            volumes += _listed(target, name)
        return tuple(volumes)

    def _publish(self, errand: Errand, image: Image) -> Outcome:
        """Publish the image in each target; one that fails does not keep the others waiting."""
        faults: list[PublishError] = []
        volumes: list[str] = []
        published = False
        for target in errand.targets:
            try:
                form = errand.form_for(target)
                name = file_name(errand.settings.name, errand.reference, image, form)
                there = self._there(errand, target, name, image)
                if there is None:
                    file = self._stock.file(self.config, self.targets, errand, image, form)
                    there = self._publish_to(target, errand, image, file, name)
                    published = True
                volumes += there
            except PublishError as exc:
                faults.append(exc)
        if faults:
            raise PublishError("; ".join(map(str, faults)))
        said = "is published" if published else "was there already"
        result = Result.PUBLISHED if published else Result.UNCHANGED
        return Outcome(result, f"{image.digest} {said}", tuple(volumes))

    def _publish_to(
        self,
        target: Target,
        errand: Errand,
        image: Image,
        file: File,
        name: str,
    ) -> tuple[str, ...]:
        """Publish a file in one target, between two lines of the ledger; return its volume ids."""
        template = Template(
            name=name,
            target=target.name,
            reference=errand.reference,
            format=file.form,
            platform=errand.platform,
            digest=image.digest,
            manifest_digest=image.manifest_digest,
            config_digest=image.config_digest,
            diff_ids=tuple(layer.diff_id for layer in image.layers),
            file_digest=file.digest,
            size=file.path.stat().st_size,
            created=datetime.now(UTC),
            volumes=(),
            syncd_version=__version__,
        )
        self._ledger.intend(template)
        placed = target.publish(file.path, name, file.digest, errand.progress)
        volumes = tuple(dict.fromkeys(volume.volid for volume in placed))
        self._ledger.record(replace(template, volumes=volumes))
        return volumes

    def _there(
        self, errand: Errand, target: Target, name: str, image: Image
    ) -> tuple[str, ...] | None:
        """Return the volume ids of a file that a target lists already, or None.

        The ledger learns that the tag means it now.  A file that syncd did not make stays out of
        the ledger, so that retention leaves it alone.
        """
        made = self._ledger.made(target.name, name)
        if target.missing(name, made.size if made else None):
            return None
        volumes = _listed(target, name)
        if made is not None:
            known = replace(
                made,
                reference=errand.reference,
                platform=errand.platform,
                digest=image.digest,
                created=datetime.now(UTC),
                volumes=volumes,
            )
            self._ledger.record(known)
        return volumes

    def _delete(self, target: Target, template: Template) -> bool:
        """Delete a template everywhere in a target; return whether it is gone."""
        try:
            for volume in target.volumes():
                if volume.volid in template.volumes:
                    target.delete(volume)
        except PublishError as exc:
            log.warning("not deleted", volumes=template.volumes, error=str(exc))
            return False
        self._ledger.forget(template.target, template.name)
        log.info("deleted", volumes=template.volumes)
        return True


def _listed(target: Target, name: str) -> tuple[str, ...]:
    """Return the volume ids under which a target lists a file, each once."""
    return tuple(dict.fromkeys(one.volid for one in target.volumes() if one.name == name))


def _volumes(templates: Iterable[Template]) -> tuple[str, ...]:
    return tuple(volid for template in templates for volid in template.volumes)
