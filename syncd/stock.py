"""Finished template files on this host: found where they are, or made, and kept for an hour.

Several tags often mean one image, and several targets may want its file: it is converted once.
A file is given out only while it still has the digest it was made with, since its hard links in
a storage could have been changed there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from syncd.belonging import hand_over, make_folder
from syncd.blobs import Cache
from syncd.convert import convert, tidy, workshop
from syncd.errand import Errand
from syncd.errors import StorageError
from syncd.ledger import Ledger
from syncd.manifest import Image
from syncd.reference import Digest
from syncd.settings import Config
from syncd.template import Format, Target

_KEPT = 3600.0  # seconds that a finished file serves further tags of its image


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
        """Remove what dead conversions left behind, and files that were kept long enough."""
        tidy(config.state.directory / "spool")
        for path in _shelf(config).glob("*"):
            if time.time() - path.stat().st_mtime > _KEPT:
                path.unlink(missing_ok=True)

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
        state, shelf = config.state, _shelf(config)
        cache = Cache(state.directory / "cache", state.cache_max)
        with workshop(state.directory / "spool") as folder:
            draft = folder / f"{errand.reference.image}{form.suffix}"
            written = convert(
                image,
                lambda blob: cache.reader(blob, errand.registry.blob),
                draft,
                form=form,
                level=errand.settings.compression_level,
                limits=config.limits.bounds(),
                spool=folder,
                progress=errand.progress,
            )
            name = f"{image.manifest_digest.encoded}-{written.digest.encoded}{form.suffix}"
            try:
                make_folder(shelf)
                path = draft.rename(shelf / name)
                hand_over(path, shelf)
            except OSError as exc:
                raise StorageError(
                    f"{shelf} does not take a finished template: {exc.strerror}",
                    "check its permissions and free space",
                ) from exc
        cache.keep(errand.reference, image)
        return File(path, form, written.digest)


def _shelf(config: Config) -> Path:
    return config.state.directory / "made"


def _is_intact(path: Path, digest: Digest) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.encoded
    except OSError:
        return False
