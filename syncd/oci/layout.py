"""OCI image layouts in folders, as sources of images, and what their two small files say.

Everything in a layout is read with suspicion: what is too large, of another kind or not what its
descriptor says is an error.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

from pathlib import Path

from syncd.errors import ImageError, StorageError
from syncd.limits import Limits
from syncd.oci.document import parse_json, sequence
from syncd.oci.image_name import named, names_of, several
from syncd.oci.manifest import Descriptor, Index, Reader
from syncd.oci.reference import Digest


class Layout:
    """An OCI image layout in a folder, as a source of images."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self._limits = limits or Limits()

    def find(self, name: str = "") -> Descriptor:
        """Return the image of this name, or the only one; raise ImageError or StorageError."""
        return only(self.tops(name), f"{self.folder}/index.json")

    def tops(self, name: str = "") -> list[Descriptor]:
        """Return the images of this name, one for each platform; raise as `find`."""
        if not (self.folder / "oci-layout").is_file():
            raise ImageError(f"{self.folder} is not an OCI image layout: it has no oci-layout file")
        check_layout(self._read(self.folder / "oci-layout"), f"{self.folder}/oci-layout")
        return tops_of(self._read(self.folder / "index.json"), name, f"{self.folder}/index.json")

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified."""
        return wanted.verify(self._read(self._path(wanted.digest)))

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; raise ImageError when the layout lacks it."""
        return open_file(self._path(wanted.digest), wanted.digest, offset)

    def _path(self, digest: Digest) -> Path:
        return self.folder / blob_name(digest)

    def _read(self, path: Path) -> bytes:
        return read_file(path, self._limits)


def read_file(path: Path, limits: Limits) -> bytes:
    """Return a document's bytes; raise ImageError, LimitError or StorageError."""
    _refuse_special(path)
    try:
        with path.open("rb") as file:
            content = file.read(limits.document.maximum + 1)
    except FileNotFoundError as exc:
        raise ImageError(f"{path} does not exist") from exc
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc.strerror}") from exc
    limits.document.check(len(content), f"the size of {path}")
    return content


def open_file(path: Path, digest: Digest, offset: int) -> Reader:
    """Open the file of the blob `digest` from `offset` on; raise ImageError or StorageError."""
    _refuse_special(path)
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as exc:
        raise ImageError(f"{path.parent} lacks the blob {digest}") from exc
    except OSError as exc:
        raise StorageError(f"blob {digest} cannot be read: {exc}") from exc
    file.seek(offset)
    return file


def check_layout(marker: bytes, place: str) -> None:
    """Check the file `oci-layout` of a layout: its version must be one that is read here."""
    version = parse_json(marker, place).get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise ImageError(
            f"{place} is of image layout version {version!r:.40}", "syncd reads version 1.0.0"
        )


def tops_of(index: bytes, name: str, place: str) -> list[Descriptor]:
    """Return the entries of a layout's `index.json` that have this name, or all without a name.

    Entries of other media types than an image's are passed over (image-index.md), and so are
    attestations.  Several entries are one image for several platforms, or an open choice.
    """
    fields = parse_json(index, place)
    if fields.get("schemaVersion", 2) != 2:
        raise ImageError(f"{place} is not of schema version 2")
    entries = sequence(fields.get("manifests"), f"{place}.manifests")
    images = Index(
        tuple(Descriptor.parse(e, f"{place}.manifests[{i}]") for i, e in enumerate(entries))
    ).images
    chosen = named([(entry, names_of(entry)) for entry in images], name, place)
    return list({images[at].digest: images[at] for at in chosen}.values())


def only(tops: list[Descriptor], place: str) -> Descriptor:
    """Return the only one of several images; raise ImageError where there are more."""
    if len(tops) > 1:
        raise several(place, [" ".join(names_of(top)[:1]) or str(top.digest) for top in tops])
    return tops[0]


def blob_name(digest: Digest) -> str:
    """Return a blob's name below a layout's root (image-layout.md, "Blobs")."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _refuse_special(path: Path) -> None:
    """Raise ImageError when the path is no regular file: to open a FIFO might take for ever."""
    if path.exists() and not path.is_file():
        raise ImageError(f"{path} is not a file")
