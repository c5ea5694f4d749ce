"""The layer cache: blobs on disk, each fetched once.

It is an OCI image layout: a blob appears under its digest only when it is complete and
verified, and `index.json` names only images whose blobs the cache has.  Other tools can read the
cache; only this module writes it.  Blobs are verified again on every reading, and a blob that has
gone bad is removed to be fetched anew, so the cache never waits for a disk to flush.  How large it
may grow is decided by who has it drop blobs.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from syncd.errors import ImageError, StorageError
from syncd.files import make_folder, open_own, replace_file
from syncd.limits import Limits
from syncd.oci.blob_reader import BlobReader
from syncd.oci.document import OCI_INDEX, parse_json
from syncd.oci.image_name import REF_NAME
from syncd.oci.layout import Layout
from syncd.oci.manifest import Descriptor, Image, Manifest, Reader, parse_document
from syncd.oci.reference import Digest, Reference
from syncd.progress import Pause

_INGEST = ".ingest"
_STALE = 24 * 3600.0  # seconds after which an abandoned download is not worth resuming
_SETTLING = 3600.0  # seconds a blob may stay without an image that names it: its job is running
_PAUSE = 0.25  # seconds between two looks at whether somebody else is done with a blob
_PATIENCE = 10.0  # seconds after each of which somebody else has to have got on
_GETTING_ON = 128 << 10  # bytes that somebody else has to have fetched meanwhile

Fetch = Callable[[Descriptor, int], Reader]
"""Opens a blob at its source, from an offset in bytes on."""


class BlobCache(Layout):
    """The layer cache: a layout that fills itself while blobs are read through it.

    Several threads and processes may use one cache at a time.
    """

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        super().__init__(folder, limits)
        self._ingest = folder / _INGEST
        with _disk(folder):
            for needed in (self._ingest, folder / "blobs" / "sha256", folder / "blobs" / "sha512"):
                make_folder(needed)
        with _disk(folder), self._locked():
            if not (folder / "index.json").exists():
                replace_file(folder / "index.json", _index([]))
            if not (folder / "oci-layout").exists():
                replace_file(folder / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')

    def reader(
        self, wanted: Descriptor, fetch: Fetch, pause: Pause = time.sleep, *, keep: bool = True
    ) -> BlobReader:
        """Open a blob, verified; a blob that the cache lacks is fetched, and kept as it is read.

        Without `keep` it is not kept.

        While another reader fetches the same blob, this one waits: it calls `pause` with seconds,
        which may raise to give up.  Where the other reader hardly gets on, since its registry is
        slow or silent, this one fetches the blob, too, and does not keep it.  A fetch that broke
        off goes on where it stopped, now or when the blob is asked for again.
        """
        path, part = self.places(self.folder, wanted.digest)
        with _disk(self.folder):
            while True:
                try:
                    file = path.open("rb", buffering=0)
                except FileNotFoundError:
                    pass
                else:
                    os.utime(path)
                    return BlobReader(wanted, keeper=_KeptFile(file, path))
                if not keep:
                    return BlobReader(wanted, open_at=partial(fetch, wanted), pause=pause)
                with ExitStack() as otherwise:
                    opened = open(part, "a+b", buffering=0, opener=open_own)  # noqa: SIM115 - the stack closes it
                    kept = cast(BinaryIO, otherwise.enter_context(opened))
                    growth = _Growth(kept)
                    while not _lock(kept):
                        if growth.is_slow():
                            return BlobReader(wanted, open_at=partial(fetch, wanted), pause=pause)
                        pause(_PAUSE)
                    if os.fstat(kept.fileno()).st_nlink and not path.exists():
                        otherwise.pop_all()
                        return BlobReader(
                            wanted,
                            open_at=partial(fetch, wanted),
                            keeper=_KeptFile(kept, path),
                            pause=pause,
                        )

    def holds(self, digest: Digest) -> bool:
        """Tell whether a blob is here, so that reading it costs no request."""
        return self._path(digest).exists()

    @staticmethod
    def places(folder: Path, digest: Digest) -> tuple[Path, Path]:
        """Return where a cache in `folder` has a blob, and the part that is fetched so far."""
        name = digest.encoded
        return folder / "blobs" / digest.algorithm / name, folder / _INGEST / name

    def drop(self, files: Collection[Path]) -> None:
        """Remove blobs and parts of blobs, except parts that somebody fetches now.

        An image that needs one of them loses its name before.
        """
        with _disk(self.folder), self._locked():
            entries = self._entries()
            stay = [entry for entry in entries if not self._blobs_of(entry).keys() & set(files)]
            if len(stay) < len(entries):
                replace_file(self.folder / "index.json", _index(stay))
            for file in files:
                with suppress(FileNotFoundError):
                    if file.parent != self._ingest:
                        file.unlink()
                        continue
                    with file.open("rb") as part:
                        if _lock(part):
                            file.unlink()

    def keep(self, reference: Reference, image: Image, using: Container[Path] = ()) -> None:
        """Give the image, whose layers the cache has read, its name; remove what has none.

        What running jobs are `using` stays, and so does what is young.
        """
        manifest = image.manifest
        entry = {
            "mediaType": manifest.media_type,
            "digest": str(image.manifest_digest),
            "size": len(manifest.raw),
            "annotations": {REF_NAME: str(reference)},
        }
        with _disk(self.folder), self._locked():
            replace_file(self._path(image.manifest_digest), manifest.raw)
            replace_file(self._path(image.config_digest), image.raw_config)
            entries = [e for e in self._entries() if e["annotations"][REF_NAME] != str(reference)]
            self._clean([*entries, entry], using)

    def _entries(self) -> list[dict[str, Any]]:
        """Return the entries of the index; none if it was damaged, for example by a power cut."""
        path = self.folder / "index.json"
        try:
            entries = parse_json(self._read(path), str(path))["manifests"]
            return [entry for entry in entries if entry["annotations"][REF_NAME]]
        except (ImageError, KeyError, TypeError):
            return []

    def _clean(self, entries: list[dict[str, Any]], using: Container[Path]) -> None:
        """Write the index, and remove what none of its images names.

        An image of which something is gone, dropped or found bad meanwhile, loses its name.
        """
        blobs = [(entry, self._blobs_of(entry)) for entry in entries]
        replace_file(self.folder / "index.json", _index([entry for entry, has in blobs if has]))
        needed = {path for _, has in blobs for path in has}
        now = time.time()
        # A young blob that no image names belongs to a job under way, maybe of another process.
        for blob in self.folder.glob("blobs/*/*"):
            if blob not in needed and blob not in using and _older(blob, now - _SETTLING):
                blob.unlink(missing_ok=True)
        for part in self._ingest.iterdir():
            if part not in using and _older(part, now - _STALE):
                part.unlink(missing_ok=True)

    def _blobs_of(self, entry: dict[str, Any]) -> dict[Path, int]:
        """Return the blobs that an image of the index needs, with their sizes in bytes.

        Return nothing when the cache lacks one of them.
        """
        try:
            top = Descriptor.parse(entry, "index.json")
            document = parse_document(self.document(top), top)
        except ImageError:
            return {}
        below = (document.config, *document.layers) if isinstance(document, Manifest) else ()
        blobs = {self._path(needed.digest): needed.size for needed in (top, *below)}
        try:
            return blobs if all(path.stat().st_size == blobs[path] for path in blobs) else {}
        except FileNotFoundError:
            return {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the cache's index alone, across processes."""
        opened = open_own(self.folder / ".lock", os.O_RDWR)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield
        finally:
            os.close(opened)


class _Growth:
    """Watches how fast somebody else's file grows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._looked = time.monotonic()
        self._size = self._now()

    def is_slow(self) -> bool:
        """Tell whether the file grew too little since `_PATIENCE` seconds ago."""
        if time.monotonic() - self._looked < _PATIENCE:
            return False
        before, self._size, self._looked = self._size, self._now(), time.monotonic()
        return self._size - before < _GETTING_ON

    def _now(self) -> int:
        return os.fstat(self._file.fileno()).st_size


class _KeptFile:
    """A file of the cache with the bytes of one blob: the blob itself at `place`, or a part of it.

    A part moves to `place` when it is complete.  A blob that is there may go while it is read.
    """

    def __init__(self, file: BinaryIO, place: Path) -> None:
        self._file = file
        self._path = Path(file.name)
        self._place = place
        self.size = os.fstat(file.fileno()).st_size

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def append(self, content: bytes) -> None:
        with _disk(self._place.parent):
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]

    def complete(self) -> None:
        if self._path != self._place:
            with _disk(self._place.parent):
                self._path.replace(self._place)

    def discard(self) -> None:
        with _disk(self._place.parent):
            if self._path == self._place:
                self._place.unlink(missing_ok=True)
            else:
                self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


def _lock(file: BinaryIO) -> bool:
    """Lock a file for this process, and tell whether nobody else had it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _older(path: Path, moment: float) -> bool:
    """Tell whether a file was last written before `moment`; not so one that is gone by now."""
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _index(entries: list[dict[str, Any]]) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document, indent=1).encode()


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    """Raise StorageError for an OSError of the disk."""
    try:
        yield
    except OSError as exc:
        raise StorageError(
            f"the blob cache {place} cannot be used: {exc.strerror}",
            "check its permissions and free space",
        ) from exc
