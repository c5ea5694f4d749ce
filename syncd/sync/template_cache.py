"""Finished template files on this host: found where they are, or made with what earlier ones left.

Several tags often mean one image, and several targets may want its file: it is converted once.
A file is given out only while it still has the digest it was made with: one in a storage could
have been changed there.

An image that changed a little is made from what is here already: its unchanged layers lie unpacked,
and what is the same in an earlier template is copied from there.  Finished files and unpacked
layers stay as long as the bound of the state leaves room for them.  Nothing of it is needed:
whatever is missing or damaged is made again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from syncd.config import StatePaths
from syncd.convert import (
    Capacity,
    Convert,
    Options,
    ScratchSpace,
    WrittenTemplate,
    alive,
    conversion_folder,
    kept_at,
    remove_abandoned,
)
from syncd.errors import (
    ConversionDiedError,
    FullStateError,
    NoRoomError,
    StorageError,
)
from syncd.files import hand_over, make_folder
from syncd.formats import Format
from syncd.oci import BlobCache, Descriptor, Digest, Image, OpenedImage, Reader
from syncd.sync.context import Running, SyncContext
from syncd.sync.deaths import Deaths
from syncd.sync.job import LayerBytes
from syncd.sync.layer_reading import LayerReading, layer_sizes, ranges_of
from syncd.sync.ledger import Ledger
from syncd.sync.mirror_trust import MirrorTrust
from syncd.sync.state_room import Need, RoomShare, StateRoom
from syncd.sync.tally import Counted, Instead
from syncd.sync.template_use import TABLE, WARNINGS, TemplateUse

_SETTLING = 3600.0  # seconds that what lies beside a finished file may be without it
_ROOM = "room below state.directory"  # what a conversion waits for
_EARLIER = 32  # finished files whose frames a conversion may copy


@dataclass(frozen=True, slots=True)
class CachedTemplate:
    """A finished template file on this host, its digest, and the sentences on its image."""

    path: Path
    format: Format
    digest: Digest
    warnings: tuple[str, ...] = ()


class TemplateCache:
    """Gives finished files, which `convert` makes.

    Safe to use from several threads, and by several processes.
    """

    def __init__(self, ledger: Ledger, running: Running, convert: Convert, room: StateRoom) -> None:
        self._ledger = ledger
        self._room = room
        self._running = running
        self._convert = convert
        self._deaths = Deaths()
        self._suitable: set[Digest] = set()
        config = running.config
        self._capacity = Capacity(config.worker.jobs, config.limits.bounds().memory)

    def file(
        self, context: SyncContext, image: Image, template_format: Format, use: TemplateUse
    ) -> CachedTemplate:
        """Return a finished file of this image: one that is there, or a new one.

        Nobody removes it while `use` lasts.  A strict image's file counts only when this object saw
        it made from an image that was suitable: any other file may have been made before the image
        was strict.  With a caller's login only what that login brought counts: to know a digest is
        no right to what has it.  Raise what a conversion raises, StorageError when the state's disk
        refuses, and NoRoomError when the state has no room for the conversion.
        """
        for path, digest in self._candidates(context, image, template_format):
            if context.settings.strict and digest not in self._suitable:
                continue
            is_ours = path.parent == self._paths.templates
            if is_ours and not use.add(path):
                continue
            if is_intact(path, digest):
                if is_ours:
                    os.utime(path)
                whole = sum(layer_sizes(image).values())
                self._ledger.tally.add(Counted.SAVED, Instead.TEMPLATE, amount=whole)
                context.layers.append(LayerBytes(0, whole))
                warnings = self._warnings(context, image, template_format, digest)
                return CachedTemplate(path, template_format, digest, warnings)
        return self._make(context, image, template_format, use)

    def tidy(self) -> None:
        """Remove what dead conversions left behind, and what the state has no room for."""
        remove_abandoned(self._paths.scratch)
        for suffix in (TABLE, WARNINGS):
            for path in self._paths.templates.glob(f"*{suffix}"):
                age = time.time() - _last_used(path)
                if age > _SETTLING and not path.with_suffix("").exists():
                    path.unlink(missing_ok=True)
        self._room.shrink()

    @property
    def _paths(self) -> StatePaths:
        return self._running.config.state.paths

    def _blobs(self, folder: Path | None = None) -> BlobCache:
        """Return the layer cache of all, or one of its own in a folder."""
        return BlobCache(folder or self._paths.blob_cache, self._running.config.limits.bounds())

    def _candidates(
        self, context: SyncContext, image: Image, template_format: Format
    ) -> Iterator[tuple[Path, Digest]]:
        """Yield files that were this image's, with the digest they were made with."""
        targets = self._running.targets
        for template in () if context.is_private else self._ledger.templates():
            wanted = (image.manifest_digest, template_format, False)
            if (template.manifest_digest, template.format, template.private) == wanted:
                target = targets.get(template.target)
                path = target.local(template.name) if target else None
                if path is not None:
                    yield path, template.file_digest
        suffix, stem = template_format.suffix, _stem(context, image)
        for path in self._made(f"{stem}-*{suffix}"):
            encoded = path.name.removesuffix(suffix).removeprefix(f"{stem}-")
            yield path, Digest("sha256", encoded)

    def _made(self, pattern: str) -> list[Path]:
        """Return the files of a pattern among the finished ones."""
        try:
            return [*self._paths.templates.glob(pattern)]
        except OSError as exc:
            raise StorageError(
                f"{self._paths.templates} cannot be listed: {exc.strerror}",
                "check its disk, and that the service may open as many files as it wants",
            ) from exc

    def _make(
        self, context: SyncContext, image: Image, template_format: Format, use: TemplateUse
    ) -> CachedTemplate:
        """Convert the image once there is room for that.

        A conversion that needs more room than it seemed, and gets none, begins anew with more.
        """
        least = 0
        while True:
            with (
                conversion_folder(self._paths.scratch) as folder,
                self._room.share(
                    folder,
                    partial(self._need, context, image, least),
                    alive(context.progress, _ROOM),
                ) as share,
            ):
                try:
                    made = self._make_in(share, context, image, template_format, use)
                except FullStateError as exc:
                    most = self._room.most()
                    if least >= most or not share.refused:
                        raise NoRoomError(exc.what, exc.hint) from exc
                    least = min(2 * share.refused, most)
                    continue
            self._room.shrink()
            return made

    def _need(self, context: SyncContext, image: Image, least: int) -> Need:
        """Return what a conversion will take, at least so many bytes of work, and what it uses.

        A template takes about as much as the compressed layers, and so does what is unpacked.  The
        blobs are kept as they are fetched, unless the state has no room for them at all.  With a
        caller's login all of them are fetched, into the conversion's own folder.
        """
        if context.is_private:
            return Need(max(least, 3 * sum(layer_sizes(image).values())))
        blobs, sizes = self._blobs(), layer_sizes(image)
        kept = {layer: kept_at(self._paths.layers, layer.diff_id) for layer in image.layers}
        absent = {
            layer.descriptor.digest: layer.descriptor.size
            for layer, path in kept.items()
            if not path.exists()
        }
        work = max(least, sum(sizes.values()) + sum(absent.values()))
        fetched = {digest: size for digest, size in absent.items() if not blobs.holds(digest)}
        if work + sum(fetched.values()) > self._room.most():
            fetched = {}
        places = {BlobCache.places(blobs.folder, digest)[0] for digest in sizes}
        return Need(work, fetched, places.union(kept.values()))

    def _make_in(
        self,
        share: RoomShare,
        context: SyncContext,
        image: Image,
        template_format: Format,
        use: TemplateUse,
    ) -> CachedTemplate:
        """Convert the image, its layers read through the blob cache."""
        config, folder = self._running.config, share.folder
        self._capacity.resize(config.worker.jobs, config.limits.bounds().memory)
        unfinished = folder / f"{context.reference.image}{template_format.suffix}"
        table = folder / TABLE
        # What a caller's login opens is neither shared with others, nor is theirs with it.
        private = context.is_private
        by_parts = context.settings.partial == "auto" and not private
        blobs = self._blobs(folder / "blobs" if private else None)
        earlier = [] if private else self._earlier()
        share.use(template for template, _ in earlier)
        repository, trust = context.repository, MirrorTrust(context.repository)

        def open_layer(blob: Descriptor) -> Reader:
            keep = private or blob.digest in share.need.blobs
            pause = context.progress.pause
            return trust.watched(blob, blobs.reader(blob, repository.blob, pause, keep=keep))

        opened = OpenedImage(
            image,
            open_layer,
            ranges_of(blobs, context) if by_parts else None,
            repository.mistrust,
            repository.vouch,
        )
        reading = LayerReading(context.progress, blobs)
        options = Options(
            ScratchSpace(folder, None if private else self._paths.layers, share.hold),
            format=template_format,
            level=context.settings.compression_level,
            limits=config.limits.bounds(),
            capacity=self._capacity,
            strict=context.settings.strict,
            progress=reading,
            earlier=earlier,
            table=table,
        )
        try:
            written = trust.converted(partial(self._convert, opened, unfinished, options))
        except ConversionDiedError as exc:
            raise self._deaths.count(image.manifest_digest, exc) from exc
        self._deaths.forget(image.manifest_digest)
        context.layers.append(reading.count(self._ledger.tally, image))
        use.add(unfinished)
        path = self._keep(unfinished, table, context, image, template_format, written=written)
        if not private:
            blobs.keep(context.reference, image, self._room.in_use())
        if written.is_suitable:
            self._suitable.add(written.digest)
        return CachedTemplate(path, template_format, written.digest, written.warnings)

    def _earlier(self) -> list[tuple[Path, Path]]:
        """Return the finished files that were used last, with their tables."""
        found = [(table.with_suffix(""), table) for table in self._made(f"*{TABLE}")]
        return sorted(found, key=lambda each: _last_used(each[0]), reverse=True)[:_EARLIER]

    def _keep(
        self,
        unfinished: Path,
        table: Path,
        context: SyncContext,
        image: Image,
        template_format: Format,
        *,
        written: WrittenTemplate,
    ) -> Path:
        """Keep a finished file, with the table of its frames; return where it is now.

        Of what a caller's login brought no table is kept, so that no other template gets frames.
        """
        folder = self._paths.templates
        name = _name(context, image, template_format, written.digest)
        try:
            make_folder(folder)
            path = unfinished.rename(folder / name)
            hand_over(path, folder)
            if not context.is_private:
                hand_over(table.rename(path.with_name(f"{name}{TABLE}")), folder)
            if written.warnings:
                path.with_name(f"{name}{WARNINGS}").write_text("\n".join(written.warnings))
        except OSError as exc:
            raise StorageError(
                f"{folder} does not take a finished template: {exc.strerror}",
                "check its permissions and free space",
            ) from exc
        return path

    def _warnings(
        self, context: SyncContext, image: Image, template_format: Format, digest: Digest
    ) -> tuple[str, ...]:
        """Return the sentences that were kept with a finished file, if they are still here."""
        name = _name(context, image, template_format, digest)
        try:
            text = (self._paths.templates / f"{name}{WARNINGS}").read_text()
        except (OSError, ValueError):
            return ()
        return tuple(text.splitlines())


def _stem(context: SyncContext, image: Image) -> str:
    """Return how the names of an image's finished files begin; a caller's login has its own."""
    mark = f"{context.login.mark}-" if context.login and context.is_private else ""
    return f"{mark}{image.manifest_digest.encoded}"


def _name(context: SyncContext, image: Image, template_format: Format, digest: Digest) -> str:
    """Return the name of a finished file, by the digests of its image and of itself."""
    return f"{_stem(context, image)}-{digest.encoded}{template_format.suffix}"


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_intact(path: Path, digest: Digest) -> bool:
    """Tell whether a file can be read and has this digest."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.encoded
    except OSError:
        return False
