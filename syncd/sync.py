"""The way of one job: resolve, pull, flatten, publish, retain.

The only place that hands blocking work to threads.  From the first answer of the registry on,
the digest is pinned; the tag is not read again.  Every step can be repeated after a crash at any
instruction: what is done is found done.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from syncd import __version__
from syncd.blobs import Cache
from syncd.convert import convert, tidy, workshop
from syncd.errors import PublishError
from syncd.job import Outcome, Progress, Result, Stoppable, SyncJob
from syncd.ledger import Ledger
from syncd.manifest import Descriptor, Image, read_image
from syncd.reference import Digest, Platform, Reference
from syncd.registry import Registry
from syncd.settings import Config, ImageSettings
from syncd.template import Format, Target, Template, file_name, surplus

log = structlog.stdlib.get_logger()

_KEPT = 3600.0  # seconds that a finished file serves further tags of its image


@dataclass(frozen=True, slots=True)
class Errand:
    """One reference, with everything that is decided before the registry is asked."""

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


@dataclass(frozen=True, slots=True)
class File:
    """A finished template file on this host, and its digest."""

    path: Path
    form: Format
    digest: Digest


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
        self._turns: defaultdict[Digest, asyncio.Lock] = defaultdict(asyncio.Lock)

    def tidy(self) -> None:
        """Remove what dead conversions left behind, and files that were kept long enough."""
        tidy(self.config.state.directory / "spool")
        for file in (self.config.state.directory / "made").glob("*"):
            if time.time() - file.stat().st_mtime > _KEPT:
                file.unlink(missing_ok=True)

    async def bring(self, job: SyncJob) -> Outcome:
        """Ensure that what the reference means now is published; return how that went."""
        errand = self.errand(job.reference)
        found = await asyncio.to_thread(errand.registry.resolve, errand.reference)
        try:
            held = await asyncio.to_thread(self._held, errand, found)
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
        return await asyncio.to_thread(self._held, errand, found)

    def errand(self, reference: Reference) -> Errand:
        """Gather what a reference's job needs; raise PublishError when there is no target."""
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
            Registry(reference, self.config.registry_for(reference.registry), progress.pause),
            tuple(self.targets[name] for name in wanted),
            progress,
        )

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
            for template in surplus(versions, errand.settings.keep):
                if template.name in shared:
                    if not dry_run:
                        self._ledger.forget(target.name, template.name, errand.reference)
                elif dry_run or self._delete(target, template):
                    gone.append(template)
        return gone

    def _held(self, errand: Errand, found: Descriptor) -> tuple[str, ...] | None:
        """Return the volume ids if every target lists the template of this very digest."""
        volumes: list[str] = []
        for target in errand.targets:
            wanted = (found.digest, errand.form_for(target), errand.platform)
            versions = self._ledger.templates(errand.reference, target.name)
            for template in versions:
                same = (template.digest, template.format, template.platform) == wanted
                if same and not target.missing(template.name, template.size):
                    if template is not versions[0]:  # the tag went back to it
                        self._ledger.record(replace(template, created=datetime.now(UTC)))
                    volumes += template.volumes
                    break
            else:
                return None
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
                    file = self._file(errand, image, form)
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
        volumes = tuple(
            dict.fromkeys(volume.volid for volume in target.volumes() if volume.name == name)
        )
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

    def _file(self, errand: Errand, image: Image, form: Format) -> File:
        """Return a finished file of this image: one that is there, or a new one.

        A new one is kept for an hour, since several tags often mean one image.
        """
        for template in self._ledger.templates():
            if (template.manifest_digest, template.format) == (image.manifest_digest, form):
                target = self.targets.get(template.target)
                path = target.local(template.name) if target else None
                if path is not None and _is_intact(path, template.file_digest):
                    return File(path, form, template.file_digest)
        state = self.config.state
        made = state.directory / "made"
        for path in made.glob(f"{image.manifest_digest.encoded}-*{form.suffix}"):
            digest = Digest("sha256", path.name.removesuffix(form.suffix).partition("-")[2])
            if _is_intact(path, digest):
                return File(path, form, digest)
        cache = Cache(state.directory / "cache", state.cache_max)
        with workshop(state.directory / "spool") as folder:
            written = convert(
                image,
                lambda blob: cache.reader(blob, errand.registry.blob),
                folder / "template",
                form=form,
                level=errand.settings.compression_level,
                limits=self.config.limits.bounds(),
                spool=folder,
                progress=errand.progress,
            )
            name = f"{image.manifest_digest.encoded}-{written.digest.encoded}{form.suffix}"
            made.mkdir(exist_ok=True)
            path = (folder / "template").rename(made / name)
        cache.keep(errand.reference, image)
        return File(path, form, written.digest)

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


def _is_intact(path: Path, digest: Digest) -> bool:
    """Tell whether a file still has the bytes that were written: its hard links may be changed."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.encoded
    except OSError:
        return False
