"""OCI archives: an image layout inside one uncompressed tar, read as a source and written.

Written is the `oci` template: one manifest and one layer, for the extractor of Proxmox VE 9.1
(proxmox-oci).  It takes an archive for an image only when the members are named exactly
`oci-layout`, `index.json` and `blobs/...`; it wants OCI media types, whatever the registry
served, and reads the first manifest.  The layer is written in place behind room that is kept
for everything else, so that no byte of it is copied; `index.json` is filled up with blanks, which
JSON allows at its end, until the room is used up.  The same image always gives the same bytes.

Sources: https://github.com/opencontainers/image-spec/blob/main/image-layout.md, config.md and
manifest.md; https://git.proxmox.com/?p=proxmox-oci.git
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from syncd.errors import ImageError, StorageError
from syncd.layout import check_layout, named
from syncd.limits import Limits
from syncd.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Image,
    Layer,
    Reader,
    parse_json,
)
from syncd.member import BLOCK, END_OF_ARCHIVE, FILE, Member, header, is_whole, padding
from syncd.reference import Digest
from syncd.tar import Parser

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
}
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_RUNTIME: Mapping[str, type] = {
    "User": str,
    "ExposedPorts": dict,
    "Env": list,
    "Entrypoint": list,
    "Cmd": list,
    "Volumes": dict,
    "WorkingDir": str,
    "Labels": dict,
    "StopSignal": str,
}
"""What an OCI config says of running the image (config.md, "Properties"); Docker's says more."""
_JSON: Mapping[type, str] = {str: "string", list: "array", dict: "object"}
_LARGEST = Layer(
    Descriptor(OCI_LAYER, Digest("sha256", "0" * 64), 1 << 53), Digest("sha256", "0" * 64)
)
"""A layer whose description takes as much room as that of any."""


class Archive:
    """An uncompressed OCI archive on disk, as a source of images.

    Its blobs are read where they lie.  Safe to use from several threads.
    """

    def __init__(self, file: Path, limits: Limits | None = None) -> None:
        self.file = file
        self._limits = limits or Limits()
        try:
            with file.open("rb") as opened:
                self._members = _indexed(opened, file, self._limits)
        except OSError as exc:
            raise StorageError(f"{file} cannot be read: {exc.strerror}") from exc

    def find(self, name: str = "") -> Descriptor:
        """Return the image of this name, or the only one; raise ImageError or StorageError."""
        if "oci-layout" not in self._members:
            docker = "manifest.json" in self._members
            raise ImageError(
                f"{self.file} is not an OCI archive: it has no member oci-layout",
                f"convert it: skopeo copy docker-archive:{self.file} oci-archive:OTHER"
                if docker
                else "",
            )
        check_layout(self._document("oci-layout"), f"{self.file}: oci-layout")
        return named(self._document("index.json"), name, f"{self.file}: index.json")

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified."""
        return wanted.verify(self._document(_blob_name(wanted.digest)))

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; raise ImageError when the archive lacks it."""
        place, size = self._place(_blob_name(wanted.digest))
        try:
            return _Slice(self.file, place + offset, size - offset)
        except OSError as exc:
            raise StorageError(f"{self.file} cannot be read: {exc.strerror}") from exc

    def _document(self, name: str) -> bytes:
        place, size = self._place(name)
        self._limits.check("document", size, f"the size of {name} in {self.file}")
        try:
            with self.file.open("rb") as opened:
                return os.pread(opened.fileno(), size, place)
        except OSError as exc:
            raise StorageError(f"{self.file} cannot be read: {exc.strerror}") from exc

    def _place(self, name: str) -> tuple[int, int]:
        try:
            return self._members[name]
        except KeyError:
            raise ImageError(f"{self.file} lacks the member {name}") from None


class _Slice:
    """A stretch of a file."""

    def __init__(self, file: Path, offset: int, size: int) -> None:
        self._file = file.open("rb", buffering=0)
        self._at = offset
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._file.fileno(), min(size, self._left), self._at)
        self._at += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def _indexed(opened: BinaryIO, file: Path, limits: Limits) -> dict[str, tuple[int, int]]:
    """Return where each file's content lies in the archive, as (offset, size) in bytes.

    Names may start with `./`; of equal names the last counts, as in every tar.
    """
    start = opened.read(8)
    for magic, compression in _MAGIC.items():
        if start.startswith(magic):
            raise ImageError(
                f"{file} is compressed with {compression}, which an OCI archive must not be",
                f"decompress it with {compression} first",
            )
    parser = Parser(limits)
    size = os.fstat(opened.fileno()).st_size
    at = 0
    while at < size:
        block = os.pread(opened.fileno(), BLOCK, at)
        if not block:
            raise ImageError(f"the archive {file} became shorter while it was read")
        parser.feed(block)
        at += len(block) + parser.pass_over()
    parser.close()
    found = {}
    for member in parser.members:
        if member.kind != FILE:
            continue
        if not is_whole(member):
            raise ImageError(f"{file} holds a sparse file, which an OCI archive has no use for")
        place = member.extents[0][2] if member.extents else 0
        if place + member.size > size:
            raise ImageError(f"the archive {file} is cut short")
        name = member.name.decode("utf-8", "backslashreplace")
        found[name.removeprefix("./").lstrip("/")] = (place, member.size)
    return found


def begin(file: BinaryIO, image: Image) -> None:
    """Put `file` to where the layer of the image's archive is to be written."""
    file.seek(_room(image))


def finish(file: BinaryIO, image: Image, layer: Layer) -> int:
    """Complete the archive around its layer; return its size in bytes.

    The layer, zstd-compressed and flattened, stands where `begin` has put the file, and its
    descriptor and diff_id are `layer`.  Raise ImageError when the image's config is not valid.
    """
    room = _room(image)
    end = room + layer.descriptor.size
    file.seek(end)
    file.write(padding(layer.descriptor.size) + END_OF_ARCHIVE)
    size = file.tell()
    file.seek(0)
    file.write(_front(image, layer, room))
    file.seek(size)
    return size


def _room(image: Image) -> int:
    """Return how many bytes are kept before the layer: a multiple of the tar's blocks."""
    return len(_front(image, _LARGEST, 0))


def _front(image: Image, layer: Layer, room: int) -> bytes:
    """Return all that comes before the layer's content, filled up to `room` bytes."""
    config = _json(_config(image, layer.diff_id))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _described(OCI_CONFIG, config),
            "layers": [_descriptor(layer.descriptor)],
        }
    )
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [_described(OCI_MANIFEST, manifest) | {"platform": _platform(image)}],
        }
    )
    before = _member("oci-layout", _LAYOUT)
    behind = (
        _member(_blob_name(Digest.of(manifest)), manifest)
        + _member(_blob_name(Digest.of(config)), config)
        + _header(_blob_name(layer.descriptor.digest), layer.descriptor.size)
    )
    free = room - len(before) - len(behind) - BLOCK
    return before + _member("index.json", index.ljust(free)) + behind


def _config(image: Image, diff_id: Digest) -> dict[str, Any]:
    """Return the image's config as OCI has it, for one layer.

    Without the history: it would tell of layers that are not there any more.
    """
    source = parse_json(image.raw_config, f"config {image.config_digest}")
    kept = {key: source[key] for key in ("created", "author") if isinstance(source.get(key), str)}
    runtime: dict[str, Any] = {}
    for key, kind in _RUNTIME.items():
        value = image.runtime.get(key)
        if value is not None and not isinstance(value, kind):
            raise ImageError(
                f"config {image.config_digest}.config.{key} is not a JSON {_JSON[kind]}",
                "build the image again with a current tool",
            )
        if value:
            runtime[key] = value
    return {
        **kept,
        **_platform(image),
        "config": runtime,
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
    }


def _platform(image: Image) -> dict[str, str]:
    platform = image.platform
    words = {"architecture": platform.architecture, "os": platform.os}
    return words | ({"variant": platform.variant} if platform.variant else {})


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    return _descriptor(Descriptor(media_type, Digest.of(content), len(content)))


def _descriptor(one: Descriptor) -> dict[str, Any]:
    return {"mediaType": one.media_type, "digest": str(one.digest), "size": one.size}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + padding(len(content))


def _header(name: str, size: int) -> bytes:
    return header(Member(name.encode(), FILE, 0o644, 0, 0, 0, size))


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"
