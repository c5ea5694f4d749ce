"""Manifests, indexes and image configs: JSON from a registry turned into checked values.

OCI and Docker schema 2 media types mean the same and become the same values here.  Parsing never
trusts: sizes, digests and types are checked, and what the specification forbids or syncd cannot
use is an ImageError that names the place.

Rules: https://github.com/opencontainers/image-spec/blob/main/manifest.md, image-index.md,
config.md; https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from syncd.errors import ImageError, InvalidReferenceError, VerificationError
from syncd.reference import Digest, Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)

REF_NAME = "org.opencontainers.image.ref.name"

_LAYER_COMPRESSION = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}

_LARGEST_BLOB = 1 << 40
_NESTED_INDEXES = 4


class Reader(Protocol):
    """Bytes to be read once, in order."""

    def read(self, size: int, /) -> bytes:
        """Return at least one and at most `size` bytes, or none at the end."""

    def close(self) -> None:
        """Let go of what is behind it; nothing is read afterwards."""


class Source(Protocol):
    """Where an image's documents and blobs come from: a registry, or an OCI layout."""

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified against its descriptor."""

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob's bytes from `offset` on; not yet verified."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a document says of a blob: media type, digest, size in bytes and platform."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, value: object, place: str) -> Descriptor:
        """Check one descriptor of a document; `place` names it in errors."""
        fields = _mapping(value, place)
        media_type, size = fields.get("mediaType"), fields.get("size")
        if not isinstance(media_type, str):
            raise ImageError(f"{place} has no mediaType")
        if type(size) is not int or not 0 <= size <= _LARGEST_BLOB:
            raise ImageError(f"{place} has no valid size: {size!r:.40}")
        annotations = _mapping(fields.get("annotations") or {}, f"{place}.annotations")
        return cls(
            media_type,
            _digest(fields.get("digest"), place),
            size,
            _platform(fields.get("platform"), place),
            tuple((str(key), str(text)) for key, text in annotations.items()),
        )

    @property
    def compression(self) -> str:
        """How a layer's tar is compressed: `gzip`, `zstd`, or an empty string."""
        try:
            return _LAYER_COMPRESSION[self.media_type]
        except KeyError:
            raise ImageError(
                f"layer {self.digest} has the media type {self.media_type!r:.120}, not a layer's",
                "syncd reads tar, gzip and zstd layers; rebuild the image with one of these",
            ) from None

    def verify(self, content: bytes) -> bytes:
        """Return a document's `content` if its size and digest are the promised ones."""
        if len(content) != self.size:
            raise VerificationError(f"{self.digest} has {len(content)} bytes, not {self.size}")
        if Digest.of(content, self.digest.algorithm) != self.digest:
            raise VerificationError(f"{self.digest} has other content than its digest says")
        return content


@dataclass(frozen=True, slots=True)
class Layer:
    """One change set: its blob, and the digest of the tar inside it."""

    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, one per platform."""

    manifests: tuple[Descriptor, ...]

    def choose(self, platform: Platform) -> Descriptor:
        """Return the entry for `platform`; raise ImageError when there is none.

        Entries of `unknown/unknown` are buildx's attestations, never images.  An entry without
        a platform (allowed by image-index.md) is taken only when it is the only one.
        """
        images = [
            entry
            for entry in self.manifests
            if entry.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)
            and (entry.platform is None or entry.platform.os != "unknown")
        ]
        for entry in images:
            if entry.platform == platform:
                return entry
        if len(images) == 1 and images[0].platform is None:
            return images[0]
        found = ", ".join(str(entry.platform) for entry in images if entry.platform) or "none"
        raise ImageError(
            f"the image has no manifest for {platform} (it has: {found})",
            "build the image for this platform, or configure another one",
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: its config and its layers, oldest first."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """Everything known of one platform's image once its documents are read.

    `digest` is what the tag pointed at (an index or a manifest); `manifest_digest` is the
    platform's manifest and `config_digest` its config as the registry serves it.
    """

    digest: Digest
    manifest: Manifest
    manifest_digest: Digest
    config_digest: Digest
    platform: Platform
    layers: tuple[Layer, ...]
    runtime: Mapping[str, Any]
    raw_config: bytes

    @property
    def size(self) -> int:
        """Bytes of all layers as stored in the registry."""
        return sum(layer.descriptor.size for layer in self.layers)


def read_image(source: Source, top: Descriptor, platform: Platform) -> Image:
    """Follow `top` through indexes to the platform's manifest and config.

    Raise ImageError when the platform is absent or a document is not valid, and whatever
    `source` raises.
    """
    descriptor, content = top, source.document(top)
    for _ in range(_NESTED_INDEXES):
        document = parse_document(content, descriptor)
        if isinstance(document, Manifest):
            break
        descriptor = document.choose(platform)
        content = source.document(descriptor)
    else:
        raise ImageError(f"{top.digest} nests indexes more than {_NESTED_INDEXES} deep")
    if document.config.media_type not in CONFIG_TYPES:
        raise ImageError(
            f"{descriptor.digest} is not a container image but an artifact of type "
            f"{document.config.media_type!r:.120}",
            "name an image",
        )
    return _image(
        top.digest, descriptor.digest, document, source.document(document.config), platform
    )


def parse_document(content: bytes, descriptor: Descriptor) -> Index | Manifest:
    """Read an index or manifest, telling them apart by media type and shape."""
    place = f"manifest {descriptor.digest}"
    fields = parse_json(content, place)
    if fields.get("schemaVersion") != 2:
        raise ImageError(
            f"{place} is not of schema version 2", "push the image again with a current tool"
        )
    media_type = fields.get("mediaType") or descriptor.media_type
    known = descriptor.media_type in (*INDEX_TYPES, *MANIFEST_TYPES)
    if known and media_type != descriptor.media_type:
        raise ImageError(
            f"{place} calls itself {media_type!r:.120}, its descriptor {descriptor.media_type!r}"
        )
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise ImageError(f"{place} is an index and a manifest at once")
    if media_type in INDEX_TYPES:
        entries = sequence(fields.get("manifests"), f"{place}.manifests")
        return Index(
            tuple(Descriptor.parse(e, f"{place}.manifests[{i}]") for i, e in enumerate(entries))
        )
    if media_type in MANIFEST_TYPES:
        layers = sequence(fields.get("layers"), f"{place}.layers")
        return Manifest(
            content,
            media_type,
            Descriptor.parse(fields.get("config"), f"{place}.config"),
            tuple(Descriptor.parse(e, f"{place}.layers[{i}]") for i, e in enumerate(layers)),
        )
    raise ImageError(
        f"{place} has the media type {media_type!r:.120}, neither an image nor an index"
    )


def parse_json(content: bytes, place: str) -> dict[str, Any]:
    """Return a document's JSON object; raise ImageError when it is none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise ImageError(f"{place} is not JSON: {exc!s:.200}") from exc
    return _mapping(value, place)


def _image(
    top: Digest, digest: Digest, manifest: Manifest, raw_config: bytes, platform: Platform
) -> Image:
    place = f"config {manifest.config.digest}"
    config = parse_json(raw_config, place)
    rootfs = _mapping(config.get("rootfs"), f"{place}.rootfs")
    if rootfs.get("type", "layers") != "layers":
        raise ImageError(f"{place} has a rootfs of the unknown type {rootfs['type']!r:.40}")
    diff_ids = [
        _digest(value, f"{place}.rootfs.diff_ids[{i}]")
        for i, value in enumerate(sequence(rootfs.get("diff_ids"), f"{place}.rootfs.diff_ids"))
    ]
    if len(diff_ids) != len(manifest.layers):
        raise ImageError(
            f"{place} names {len(diff_ids)} layers, its manifest {len(manifest.layers)}"
        )
    declared = _platform(config, place)
    if declared is not None and (declared.os, declared.architecture) != (
        platform.os,
        platform.architecture,
    ):
        raise ImageError(
            f"the image is for {declared}, not for {platform}",
            "build the image for this platform, or configure another one",
        )
    return Image(
        digest=top,
        manifest=manifest,
        manifest_digest=digest,
        config_digest=manifest.config.digest,
        platform=platform,
        layers=tuple(map(Layer, manifest.layers, diff_ids)),
        runtime=_mapping(config.get("config") or {}, f"{place}.config"),
        raw_config=raw_config,
    )


def _mapping(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImageError(f"{place} is not a JSON object")
    return value


def sequence(value: object, place: str) -> list[Any]:
    """Return a JSON array of a document; raise ImageError when it is none."""
    if not isinstance(value, list):
        raise ImageError(f"{place} is not a JSON array")
    return value


def _digest(value: object, place: str) -> Digest:
    try:
        return Digest.parse(value if isinstance(value, str) else repr(value))
    except InvalidReferenceError as exc:
        raise ImageError(f"{place}: {exc.what}") from exc


def _platform(value: object, place: str) -> Platform | None:
    if value is None:
        return None
    fields = _mapping(value, f"{place}.platform")
    words = [fields.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words):
        raise ImageError(f"{place} has a platform that is not text")
    return Platform.normal(*words) if words[0] and words[1] else None
