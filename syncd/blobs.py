"""The layer cache: blobs on disk, bounded, each fetched once.

It is an OCI image layout: a blob appears under its digest only when it is complete and
verified, and `index.json` is given only names of images whose blobs are there.  Other tools can
read it; nothing but this module writes it.  Blobs are verified again on every reading, and one
that has gone bad is dropped to be fetched anew, so the cache never waits for a disk to flush.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from syncd.belonging import make_folder, open_own, replace_file
from syncd.errors import ImageError, StorageError, VerificationError
from syncd.job import Pause
from syncd.layout import Layout, Verified
from syncd.limits import Limits
from syncd.manifest import (
    OCI_INDEX,
    REF_NAME,
    Descriptor,
    Image,
    Manifest,
    Reader,
    parse_document,
    parse_json,
)
from syncd.reference import Digest, Reference

_STALE = 24 * 3600.0  # seconds after which an abandoned download is not worth resuming
_SETTLING = 3600.0  # seconds a blob may stay without an image that names it: its job is running
_PAUSE = 0.25  # seconds between two looks at whether somebody else is done with a blob

Fetch = Callable[[Descriptor, int], Reader]
"""Opens a blob at its source, from an offset in bytes on."""


class Cache(Layout):
    """The layer cache: a layout that fills itself while blobs are read through it.

    `most` bounds its bytes; images that were not used for the longest time go first.  Several
    threads and processes may use one cache at a time.
    """

    def __init__(self, folder: Path, most: int, limits: Limits | None = None) -> None:
        super().__init__(folder, limits)
        self._most = most
        self._ingest = folder / ".ingest"
        with _disk(folder):
            for one in (self._ingest, folder / "blobs" / "sha256", folder / "blobs" / "sha512"):
                make_folder(one)
        with _disk(folder), self._locked():
            if not (folder / "index.json").exists():
                replace_file(folder / "index.json", _index([]))
            if not (folder / "oci-layout").exists():
                replace_file(folder / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')

    def reader(self, wanted: Descriptor, fetch: Fetch, pause: Pause = time.sleep) -> Reader:
        """Open a blob, verified; one that is not here is fetched, and kept as it is read.

        While somebody else is fetching it this waits for them, by calling `pause` with seconds,
        which may raise to give up.  A fetch that broke off goes on where it stopped.
        """
        path, part = self._path(wanted.digest), self._ingest / wanted.digest.encoded
        with _disk(self.folder):
            while True:
                try:
                    file = path.open("rb", buffering=0)
                except FileNotFoundError:
                    pass
                else:
                    os.utime(path)
                    return _Cached(file, wanted, path)
                with ExitStack() as otherwise:
                    opened = open(part, "a+b", buffering=0, opener=open_own)  # noqa: SIM115 - the stack closes it
                    kept = cast(BinaryIO, otherwise.enter_context(opened))
                    while not _lock(kept):
                        pause(_PAUSE)
                    if os.fstat(kept.fileno()).st_nlink and not path.exists():
                        otherwise.pop_all()
                        return _Kept(kept, wanted, fetch, path)

    def size(self) -> int:
        """Return the bytes of all blobs, complete or on their way."""
        found = 0
        for path in (*self.folder.glob("blobs/*/*"), *self._ingest.iterdir()):
            with suppress(FileNotFoundError):  # it may go, or be completed, while we look
                found += path.stat().st_size
        return found

    def keep(self, reference: Reference, image: Image) -> None:
        """Give the image, whose layers were read through here, its name; drop what is too much."""
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
            self._shrink([*entries, entry])

    def _entries(self) -> list[dict[str, Any]]:
        """Return what the index names: nothing when it was damaged, say by a power cut."""
        path = self.folder / "index.json"
        try:
            entries = parse_json(self._read(path), str(path))["manifests"]
            return [entry for entry in entries if entry["annotations"][REF_NAME]]
        except (ImageError, KeyError, TypeError):
            return []

    def _shrink(self, entries: list[dict[str, Any]]) -> None:
        """Write the index without the images that do not fit, then remove what none names.

        The last entry is the image just brought; it stays even if it alone is too large.  An
        image of which something is gone, evicted or found bad meanwhile, loses its name.
        """
        blobs = {entry["digest"]: self._blobs_of(entry) for entry in entries}
        newest = entries[-1]["digest"]
        whole = [entry for entry in entries if blobs[entry["digest"]]]
        by_use = sorted(whole, key=lambda entry: self._used(entry["digest"], newest))
        sizes = {name: size for needed in blobs.values() for name, size in needed.items()}
        while len(by_use) > 1:
            needed = set().union(*(blobs[entry["digest"]] for entry in by_use))
            if sum(sizes[name] for name in needed) <= self._most:
                break
            by_use.pop(0)
        stay = [entry for entry in entries if entry in by_use]
        needed = set().union(*(blobs[entry["digest"]] for entry in stay))
        replace_file(self.folder / "index.json", _index(stay))
        now = time.time()
        # A young blob that no image names, known or dropped, belongs to a job under way.
        for blob in self.folder.glob("blobs/*/*"):
            if blob not in needed and (blob in sizes or _older(blob, now - _SETTLING)):
                blob.unlink(missing_ok=True)
        for part in self._ingest.iterdir():
            if _older(part, now - _STALE):
                part.unlink(missing_ok=True)

    def _blobs_of(self, entry: dict[str, Any]) -> dict[Path, int]:
        """Return the blobs that an image of the index needs, with their sizes in bytes.

        Nothing when one of them is not here.
        """
        try:
            top = Descriptor.parse(entry, "index.json")
            document = parse_document(self.document(top), top)
        except ImageError:
            return {}
        below = (document.config, *document.layers) if isinstance(document, Manifest) else ()
        blobs = {self._path(one.digest): one.size for one in (top, *below)}
        try:
            return blobs if all(path.stat().st_size == blobs[path] for path in blobs) else {}
        except FileNotFoundError:
            return {}

    def _used(self, digest: str, newest: str) -> float:
        """Return when an image was last brought or found present, as seconds since the epoch."""
        path = self._path(Digest.parse(digest))
        return float("inf") if digest == newest else path.stat().st_mtime

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the cache's index alone, across processes."""
        opened = open_own(self.folder / ".lock", os.O_RDWR)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield
        finally:
            os.close(opened)


class _Cached(Verified):
    """A blob of the cache; one that turns out bad is dropped, to be fetched anew next time."""

    def __init__(self, file: BinaryIO, wanted: Descriptor, path: Path) -> None:
        super().__init__(file, wanted)
        self._path = path

    def read(self, size: int, /) -> bytes:
        try:
            return super().read(size)
        except VerificationError:
            self._path.unlink(missing_ok=True)
            raise


class _Kept(Verified):
    """A blob that comes from its source, and is kept on the way."""

    def __init__(self, part: BinaryIO, wanted: Descriptor, fetch: Fetch, path: Path) -> None:
        self._part = part
        self._place = path
        self._have = os.fstat(part.fileno()).st_size
        self._at = 0
        self._done = False

        def rest() -> Reader:  # never asks a source for nothing: HTTP has status 416 for that
            return fetch(wanted, self._have) if self._have < wanted.size else BytesIO()

        super().__init__(_Resumed(part, self._have, rest), wanted)

    def read(self, size: int, /) -> bytes:
        try:
            data = super().read(size)
        except VerificationError:
            with _disk(self._place.parent):
                self._part.truncate(0)
            raise
        self._at += len(data)
        with _disk(self._place.parent):
            if self._at > self._have:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._part.write(rest) :]
            if not data and not self._done:
                Path(self._part.name).replace(self._place)
                self._done = True
        return data

    def close(self) -> None:
        super().close()
        self._part.close()


class _Resumed:
    """What an earlier attempt left, followed by what its source still has."""

    def __init__(self, part: BinaryIO, have: int, fetch: Callable[[], Reader]) -> None:
        self._part = part
        self._have = have
        self._at = 0
        self._fetch = fetch
        self._rest: Reader | None = None

    def read(self, size: int, /) -> bytes:
        if self._at < self._have:
            data = os.pread(self._part.fileno(), min(size, self._have - self._at), self._at)
            self._at += len(data)
            return data
        if self._rest is None:
            self._rest = self._fetch()
        return self._rest.read(size)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()


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
    """Tell a disk's refusal as what it is."""
    try:
        yield
    except OSError as exc:
        raise StorageError(
            f"the blob cache {place} cannot be used: {exc.strerror}",
            "check its permissions and free space",
        ) from exc
