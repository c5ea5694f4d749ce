"""Folders of skopeo's `dir:` transport: a manifest and its blobs, one file each.

Source: https://github.com/containers/image/blob/main/directory/directory_transport.go
"""

from __future__ import annotations

from pathlib import Path

from syncd.errors import ImageError
from syncd.limits import Limits
from syncd.oci.document import INDEX_TYPES, MANIFEST_TYPES, document_type, parse_json
from syncd.oci.layout import open_file, read_file
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.reference import Digest


class PlainFolder:
    """A folder that `skopeo copy ... dir:FOLDER` wrote, as a source of its one image."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self._limits = limits or Limits()

    def tops(self, name: str = "") -> list[Descriptor]:
        """Return the image, which has no name; raise ImageError or StorageError."""
        if name:
            raise ImageError(f"{self.folder} holds one image without a name, not {name!r:.300}")
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise ImageError(f"{self.folder} is no folder of skopeo's dir: it has no manifest.json")
        content = read_file(path, self._limits)
        media_type = document_type(parse_json(content, str(path)), str(path))
        return [Descriptor(media_type, Digest.of(content), len(content))]

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified."""
        top = self.folder / "manifest.json"
        path = self._path(wanted.digest)
        if wanted.media_type in (*INDEX_TYPES, *MANIFEST_TYPES):
            path = path.with_name(f"{path.name}.manifest.json")
            path = path if path.exists() else top
        return wanted.verify(read_file(path, self._limits))

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; raise ImageError when the folder lacks it."""
        return open_file(self._path(wanted.digest), wanted.digest, offset)

    def _path(self, digest: Digest) -> Path:
        prefix = "" if digest.algorithm == "sha256" else f"{digest.algorithm}-"
        return self.folder / f"{prefix}{digest.encoded}"
