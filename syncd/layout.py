"""OCI image layouts in folders, as sources of images, and what their two small files say.

Everything in a layout is read with suspicion: what is too large, of another kind or not what its
descriptor says is an error.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

from pathlib import Path

from syncd.errors import ImageError, StorageError, VerificationError
from syncd.limits import Limits
from syncd.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    REF_NAME,
    Descriptor,
    Reader,
    parse_json,
    sequence,
)
from syncd.reference import Digest


class Verified:
    """A reader of one blob that fails instead of ending when size or digest is wrong."""

    def __init__(self, source: Reader, wanted: Descriptor) -> None:
        self._source = source
        self._wanted = wanted
        self._hasher = wanted.digest.hasher()
        self._left = wanted.size

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; raise VerificationError once they cannot be the promised ones."""
        try:
            data = self._source.read(min(size, self._left + 1))
        except OSError as exc:
            raise StorageError(f"blob {self._wanted.digest} cannot be read: {exc}") from exc
        self._hasher.update(data)
        self._left -= len(data)
        if self._left < 0 or (not data and self._left):
            raise VerificationError(
                f"blob {self._wanted.digest} has {'more' if self._left < 0 else 'fewer'} "
                f"than the {self._wanted.size} bytes its descriptor says",
                "try again; if it stays so, push the image again",
            )
        if not data and self._hasher.hexdigest() != self._wanted.digest.encoded:
            raise VerificationError(
                f"blob {self._wanted.digest} has other content than its digest says",
                "try again; if it stays so, push the image again",
            )
        return data

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()


class Layout:
    """An OCI image layout in a folder, as a source of images."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self._limits = limits or Limits()

    def find(self, name: str = "") -> Descriptor:
        """Return the image of this name, or the only one; raise ImageError or StorageError."""
        if not (self.folder / "oci-layout").is_file():
            raise ImageError(f"{self.folder} is not an OCI image layout: it has no oci-layout file")
        check_layout(self._read(self.folder / "oci-layout"), f"{self.folder}/oci-layout")
        return named(self._read(self.folder / "index.json"), name, f"{self.folder}/index.json")

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified."""
        return wanted.verify(self._read(self._path(wanted.digest)))

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; raise ImageError when the layout lacks it."""
        path = self._path(wanted.digest)
        _refuse_special(path)
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError as exc:
            raise ImageError(f"{self.folder} lacks the blob {wanted.digest}") from exc
        except OSError as exc:
            raise StorageError(f"blob {wanted.digest} cannot be read: {exc}") from exc
        file.seek(offset)
        return file

    def _path(self, digest: Digest) -> Path:
        return self.folder / "blobs" / digest.algorithm / digest.encoded

    def _read(self, path: Path) -> bytes:
        _refuse_special(path)
        try:
            with path.open("rb") as file:
                content = file.read(self._limits.document + 1)
        except FileNotFoundError as exc:
            raise ImageError(f"{path} does not exist") from exc
        except OSError as exc:
            raise StorageError(f"{path} cannot be read: {exc.strerror}") from exc
        self._limits.check("document", len(content), f"the size of {path}")
        return content


def check_layout(marker: bytes, place: str) -> None:
    """Check the file `oci-layout` of a layout: its version must be one that is read here."""
    version = parse_json(marker, place).get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise ImageError(
            f"{place} is of image layout version {version!r:.40}", "syncd reads version 1.0.0"
        )


def named(index: bytes, name: str, place: str) -> Descriptor:
    """Return the entry of a layout's `index.json` that has this name, or the only one there is.

    The name is the annotation `org.opencontainers.image.ref.name` (image-layout.md).  Entries of
    other media types than an image's are passed over (image-index.md).
    """
    fields = parse_json(index, place)
    if fields.get("schemaVersion", 2) != 2:
        raise ImageError(f"{place} is not of schema version 2")
    entries = sequence(fields.get("manifests"), f"{place}.manifests")
    parsed = [Descriptor.parse(e, f"{place}.manifests[{i}]") for i, e in enumerate(entries)]
    found = [one for one in parsed if one.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)]
    names = [dict(entry.annotations).get(REF_NAME, "") for entry in found]
    chosen = [entry for entry, own in zip(found, names, strict=True) if name in ("", own)]
    if len({entry.digest for entry in chosen}) == 1:
        return chosen[-1]
    held = ", ".join(filter(None, names)) or f"{len(found)} images without a name"
    if not chosen:
        raise ImageError(f"{place} has no image {name!r}", f"it has: {held}")
    raise ImageError(f"{place} has several images", f"name one of: {held}")


def _refuse_special(path: Path) -> None:
    """Raise ImageError for what is there but no file: to open a FIFO, say, might take for ever."""
    if path.exists() and not path.is_file():
        raise ImageError(f"{path} is not a file")
