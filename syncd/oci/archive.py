"""OCI archives: an image layout inside one uncompressed tar, as a source of images.

Nothing is extracted: blobs are read where they lie in the archive.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

from pathlib import Path

from syncd.errors import ImageError
from syncd.limits import Limits
from syncd.oci.layout import blob_name, check_layout, only, tops_of
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.tar_file import TarFile


class Archive:
    """An uncompressed OCI archive on disk, as a source of images.

    Its blobs are read where they lie.  Safe to use from several threads.
    """

    def __init__(self, file: Path, limits: Limits | None = None) -> None:
        self.file = file
        self._tar = TarFile(file, limits or Limits())

    def find(self, name: str = "") -> Descriptor:
        """Return the image of this name, or the only one; raise ImageError or StorageError."""
        return only(self.tops(name), f"{self.file}: index.json")

    def tops(self, name: str = "") -> list[Descriptor]:
        """Return the images of this name, one for each platform; raise as `find`."""
        if "oci-layout" not in self._tar:
            docker = "manifest.json" in self._tar
            raise ImageError(
                f"{self.file} is not an OCI archive: it has no member oci-layout",
                f"name it as docker save wrote it: docker-archive:{self.file}" if docker else "",
            )
        check_layout(self._tar.document("oci-layout"), f"{self.file}: oci-layout")
        return tops_of(self._tar.document("index.json"), name, f"{self.file}: index.json")

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified."""
        return wanted.verify(self._tar.document(blob_name(wanted.digest)))

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; raise ImageError when the archive lacks it."""
        return self._tar.open(blob_name(wanted.digest), offset)
