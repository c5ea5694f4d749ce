"""Archives of `docker save`: images in one uncompressed tar, told by its `manifest.json`.

Such an archive has no manifest of a registry; one is made here of what the archive holds, the same
each time.  The config is the one of the registry, byte for byte.  Nothing is extracted.

Source: https://github.com/moby/docker-image-spec/blob/main/spec.md, "Combined Image JSON +
Filesystem Changeset Format"
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from syncd.errors import ImageError
from syncd.limits import Limits
from syncd.oci.document import OCI_CONFIG, OCI_MANIFEST, mapping, parse_json, sequence
from syncd.oci.image_name import named
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.reference import Digest
from syncd.oci.tar_file import TarFile, compression_of

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_READ_AT_A_TIME = 1 << 20


class DockerArchive:
    """An archive of `docker save` on disk, as a source of images.

    Its layers are read where they lie.  Safe to use from several threads once `tops` returned.
    """

    def __init__(self, file: Path, limits: Limits | None = None) -> None:
        self.file = file
        self._limits = limits or Limits()
        self._tar = TarFile(file, self._limits)
        self._documents: dict[Digest, bytes] = {}
        self._layers: dict[Digest, str] = {}

    def tops(self, name: str = "") -> list[Descriptor]:
        """Return the images of this name, or all if they have one name together.

        A name is one of the image's `RepoTags`, in short or in full, `@N` for its position, or the
        digest of its config.  Raise ImageError or StorageError.
        """
        if "manifest.json" not in self._tar:
            raise ImageError(
                f"{self.file} is not an archive of docker save: it has no member manifest.json",
                f"name it as an OCI archive: oci-archive:{self.file}"
                if "oci-layout" in self._tar
                else "",
            )
        place = f"{self.file}: manifest.json"
        rows = [mapping(row, place) for row in self._rows(place)]
        self._limits.layers.check(len(rows), f"the number of images in {self.file}")
        entries = [(self._config(row, place), _tags(row, place)) for row in rows]
        return [
            self._made(entries[position][0], rows[position], place)
            for position in named(entries, name, place)
        ]

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest or config, verified; raise ImageError when the archive lacks it."""
        try:
            return wanted.verify(self._documents[wanted.digest])
        except KeyError:
            raise ImageError(f"{self.file} lacks {wanted.digest}") from None

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a layer from `offset` on; raise ImageError when the archive lacks it."""
        try:
            return self._tar.open(self._layers[wanted.digest], offset)
        except KeyError:
            raise ImageError(f"{self.file} lacks {wanted.digest}") from None

    def _rows(self, place: str) -> list[Any]:
        # A list at the top: it is no document of OCI.
        text = b'{"images":' + self._tar.document("manifest.json") + b"}"
        return sequence(parse_json(text, place)["images"], place)

    def _config(self, row: dict[str, Any], place: str) -> Descriptor:
        content = self._tar.document(_text(row.get("Config"), f"{place}: Config"))
        return self._kept(OCI_CONFIG, content)

    def _made(self, config: Descriptor, row: dict[str, Any], place: str) -> Descriptor:
        """Return the manifest of an image whose layers are known by their diff_ids or contents."""
        fields = parse_json(self._documents[config.digest], f"config {config.digest}")
        rootfs = mapping(fields.get("rootfs"), f"config {config.digest}.rootfs")
        diff_ids = sequence(rootfs.get("diff_ids"), f"config {config.digest}.rootfs.diff_ids")
        members = sequence(row.get("Layers"), f"{place}: Layers")
        self._limits.layers.check(len(members), f"the number of layers in {self.file}")
        if len(members) != len(diff_ids):
            raise ImageError(f"{place} names {len(members)} layers, its config {len(diff_ids)}")
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _described(config),
            "layers": [
                _described(self._layer(_text(member, f"{place}: Layers"), str(diff_id)))
                for member, diff_id in zip(members, diff_ids, strict=True)
            ],
        }
        return self._kept(OCI_MANIFEST, json.dumps(manifest, sort_keys=True).encode())

    def _layer(self, member: str, diff_id: str) -> Descriptor:
        """Return a layer's descriptor: a plain tar's digest is its diff_id, others are digested."""
        hasher = hashlib.sha256()
        reader = self._tar.open(member)
        try:
            data = reader.read(_READ_AT_A_TIME)
            compression = compression_of(data)
            while data and compression:
                hasher.update(data)
                data = reader.read(_READ_AT_A_TIME)
        finally:
            reader.close()
        media_type = f"{_LAYER}+{compression}" if compression else _LAYER
        digest = Digest("sha256", hasher.hexdigest()) if compression else Digest.parse(diff_id)
        self._layers[digest] = member
        return Descriptor(media_type, digest, self._tar.size(member))

    def _kept(self, media_type: str, content: bytes) -> Descriptor:
        found = Descriptor(media_type, Digest.of(content), len(content))
        self._documents[found.digest] = content
        return found


def _tags(row: dict[str, Any], place: str) -> list[str]:
    return [_text(tag, f"{place}: RepoTags") for tag in row.get("RepoTags") or []]


def _text(value: object, place: str) -> str:
    """Return the name of a member or of an image; raise ImageError when it is none."""
    if not isinstance(value, str):
        raise ImageError(f"{place} is not text")
    return value.removeprefix("./")


def _described(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
