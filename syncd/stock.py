"""Finished template files on this host: found where they are, or made with what earlier ones left.

Several tags often mean one image, and several targets may want its file: it is converted once.
A file is given out only while it still has the digest it was made with, since its hard links in
a storage could have been changed there.

An image that changed a little is made from what is here already: its unchanged layers lie unpacked,
and what is the same in an earlier template is copied from there.  Finished files and unpacked
layers stay as long as the cache's bound leaves room for them beside what came from registries:
first goes the file that was made, or the layer that was used, longest ago.  Nothing of it is
needed: whatever is missing or damaged is made again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from syncd.belonging import hand_over, make_folder
from syncd.blobs import Cache
from syncd.convert import convert, tidy, workshop
from syncd.errand import Errand
from syncd.errors import StorageError
from syncd.frames import Table
from syncd.ledger import Ledger
from syncd.manifest import Image
from syncd.reference import Digest
from syncd.rootfs import Written
from syncd.settings import Config
from syncd.spool import Spool
from syncd.template import Format, Target

_SETTLING = 3600.0  # seconds a finished file stays at least: its targets and further tags want it
_SOURCES = 32  # earlier templates whose frames are looked at, the newest first
_FRAMES = 100_000  # of their frames that are held in memory, some hundred bytes each
_TABLE = ".frames"  # behind a finished file's name: the table of its frames


@dataclass(frozen=True, slots=True)
class File:
    """A finished template file on this host, and its digest."""

    path: Path
    form: Format
    digest: Digest


class Stock:
    """Gives finished files.  Safe to use from several threads, and by several processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def file(
        self,
        config: Config,
        targets: Mapping[str, Target],
        errand: Errand,
        image: Image,
        form: Format,
    ) -> File:
        """Return a finished file of this image: one that is there, or a new one.

        Raise what a conversion raises, and StorageError when the state's disk refuses.
        """
        for path, digest in self._candidates(config, targets, image, form):
            if _is_intact(path, digest):
                return File(path, form, digest)
        return self._make(config, errand, image, form)

    def tidy(self, config: Config) -> None:
        """Remove what dead conversions left behind, and what the cache's bound has no room for."""
        tidy(config.state.directory / "spool")
        _shrink(config, _cache(config))

    def _candidates(
        self, config: Config, targets: Mapping[str, Target], image: Image, form: Format
    ) -> Iterator[tuple[Path, Digest]]:
        """Yield files that were this image's, with the digest they were made with."""
        for template in self._ledger.templates():
            if (template.manifest_digest, template.format) == (image.manifest_digest, form):
                target = targets.get(template.target)
                path = target.local(template.name) if target else None
                if path is not None:
                    yield path, template.file_digest
        for path in _shelf(config).glob(f"{image.manifest_digest.encoded}-*{form.suffix}"):
            encoded = path.name.removesuffix(form.suffix).partition("-")[2]
            yield path, Digest("sha256", encoded)

    def _make(self, config: Config, errand: Errand, image: Image, form: Format) -> File:
        """Convert the image, its layers read through the cache."""
        cache = _cache(config)
        with workshop(config.state.directory / "spool") as folder:
            draft = folder / f"{errand.reference.image}{form.suffix}"
            written = convert(
                image,
                lambda blob: cache.reader(blob, errand.registry.blob, errand.progress.pause),
                draft,
                form=form,
                level=errand.settings.compression_level,
                limits=config.limits.bounds(),
                spool=Spool(folder, _unpacked(config)),
                progress=errand.progress,
                earlier=_earlier(config, errand.settings.compression_level),
            )
            path = _shelved(config, draft, image, form, written)
        cache.keep(errand.reference, image)
        _shrink(config, cache)
        return File(path, form, written.digest)


def _earlier(config: Config, level: int) -> list[tuple[Path, Table]]:
    """Return the newest finished files whose frames are of use, as many as may be held."""
    found: list[tuple[Path, Table]] = []
    room = _FRAMES
    for path in sorted(_shelf(config).glob(f"*{_TABLE}"), key=_last_used, reverse=True):
        table = Table.read(path, most=room)
        if table is not None and table.level == level:
            found.append((path.with_suffix(""), table))
            room -= len(table.frames)
        if len(found) == _SOURCES:
            break
    return found


def _shelved(config: Config, draft: Path, image: Image, form: Format, written: Written) -> Path:
    """Put a finished draft on the shelf, with the table of its frames; return its path there."""
    shelf = _shelf(config)
    name = f"{image.manifest_digest.encoded}-{written.digest.encoded}{form.suffix}"
    try:
        make_folder(shelf)
        path = draft.rename(shelf / name)
        hand_over(path, shelf)
        if written.table is not None:
            written.table.write(path.with_name(f"{name}{_TABLE}"))
    except OSError as exc:
        raise StorageError(
            f"{shelf} does not take a finished template: {exc.strerror}",
            "check its permissions and free space",
        ) from exc
    return path


def _shrink(config: Config, cache: Cache) -> None:
    """Drop what was made or used longest ago, until all is within the cache's bound."""
    room = config.state.cache_max - cache.size()
    files = [*_unpacked(config).glob("*"), *_shelf(config).glob("*")]
    for path in sorted(files, key=_last_used, reverse=True):
        with suppress(OSError):  # another process dropped it, or it is none of ours
            found = path.stat()
            room -= found.st_size
            settled = path.parent != _shelf(config) or time.time() - found.st_mtime > _SETTLING
            if path.suffix == _TABLE and path.with_suffix("").exists():
                continue  # it goes with its template
            if (room < 0 or path.suffix == _TABLE) and settled:
                path.unlink()
                path.with_name(f"{path.name}{_TABLE}").unlink(missing_ok=True)


def _cache(config: Config) -> Cache:
    state = config.state
    return Cache(state.directory / "cache", state.cache_max, config.limits.bounds())


def _shelf(config: Config) -> Path:
    return config.state.directory / "made"


def _unpacked(config: Config) -> Path:
    return config.state.directory / "unpacked"


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_intact(path: Path, digest: Digest) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.encoded
    except OSError:
        return False
