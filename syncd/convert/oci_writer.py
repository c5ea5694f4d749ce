"""The `oci` template: an OCI archive of one manifest and one flattened layer.

It is written for the extractor of Proxmox VE 9.1 (proxmox-oci), which takes an archive for an image
only when the members are named exactly `oci-layout`, `index.json` and `blobs/...`.  The extractor
wants OCI media types, whatever the registry served, and reads the first manifest.  The layer is
written in place behind room that is kept for everything else, so that no byte of it is copied;
`index.json` is filled up with blanks, which JSON allows at its end, until the room is used up.  The
same image always gives the same bytes.

Sources: https://github.com/opencontainers/image-spec/blob/main/image-layout.md, config.md and
manifest.md; https://git.proxmox.com/?p=proxmox-oci.git
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from syncd.oci import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Digest,
    Image,
    Layer,
    blob_name,
    is_init,
    parse_json,
)
from syncd.tar import BLOCK, END_OF_ARCHIVE, FILE, Member, encode_header, padding

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"

_HALT = "SIGRTMIN+3"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_LARGEST = Layer(
    Descriptor(OCI_LAYER, Digest("sha256", "0" * 64), 1 << 53), Digest("sha256", "0" * 64)
)
"""A layer whose description takes as much room as that of any."""


def begin(file: BinaryIO, image: Image) -> None:
    """Seek to the place in `file` where the layer of the image's archive begins."""
    file.seek(_room(image))


def finish(file: BinaryIO, image: Image, layer: Layer) -> int:
    """Complete the archive around its layer; return its size in bytes.

    The flattened layer, compressed by zstd, was written from the place on that `begin` sought;
    `layer` has its descriptor and its diff_id.
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
        _member(blob_name(Digest.of(manifest)), manifest)
        + _member(blob_name(Digest.of(config)), config)
        + _header(blob_name(layer.descriptor.digest), layer.descriptor.size)
    )
    free = room - len(before) - len(behind) - BLOCK
    return before + _member("index.json", index.ljust(free)) + behind


def _config(image: Image, diff_id: Digest) -> dict[str, Any]:
    """Return the image's config as OCI has it, for one layer.

    Without the history: it would tell of layers that are not there any more.  An image that starts
    an init and names no signal gets the one that systemd takes as an order to halt.  Proxmox VE
    would send SIGTERM, on which systemd only starts anew (systemd(1), "SIGNALS").
    """
    source = parse_json(image.raw_config, f"config {image.config_digest}")
    runtime = dict(image.runtime)
    if is_init([*runtime.get("Entrypoint", ()), *runtime.get("Cmd", ())]):
        runtime.setdefault("StopSignal", _HALT)
    kept = {key: source[key] for key in ("created", "author") if isinstance(source.get(key), str)}
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


def _descriptor(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + padding(len(content))


def _header(name: str, size: int) -> bytes:
    return encode_header(Member(name.encode(), FILE, 0o644, 0, 0, 0, size))
