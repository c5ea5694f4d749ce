"""Manifests, indexes and image configs: JSON from a registry turned into checked values.

OCI and Docker schema 2 media types mean the same and become the same values here.  Parsing never
trusts: sizes, digests and types are checked, and what the specification forbids or syncd cannot
use is an ImageError that names the place.

Rules: https://github.com/opencontainers/image-spec/blob/main/manifest.md, image-index.md,
config.md; https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from syncd.errors import ImageError, InvalidReferenceError, NoImageError, VerificationError
from syncd.oci.document import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    artifact_type,
    document_type,
    mapping,
    parse_json,
    sequence,
)
from syncd.oci.reference import Digest, Platform
from syncd.oci.runtime import checked_runtime

ATTESTATION = "vnd.docker.reference.type"

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

UNKNOWN_SIZE = -1
"""The size in a descriptor of what a registry names without saying how long it is."""

_LARGEST_BLOB = 1 << 40


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
    """What a document says of a blob: media type, digest, size in bytes and platform.

    The size is UNKNOWN_SIZE where no document but a registry's headers name the blob.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    os_features: tuple[str, ...] = ()
    os_version: str = ""
    artifact_type: str = ""

    @classmethod
    def parse(cls, value: object, place: str, untyped: str | None = None) -> Descriptor:
        """Check one descriptor of a document; `place` names it in errors.

        `untyped` is the media type of a descriptor without one, where there may be such.
        """
        fields = mapping(value, place)
        media_type, size = fields.get("mediaType", untyped), fields.get("size")
        if not isinstance(media_type, str):
            raise ImageError(f"{place} has no mediaType")
        if type(size) is not int or not 0 <= size <= _LARGEST_BLOB:
            raise ImageError(f"{place} has no valid size: {size!r:.40}")
        annotations = mapping(fields.get("annotations") or {}, f"{place}.annotations")
        runs_on = mapping(fields.get("platform") or {}, f"{place}.platform")
        return cls(
            media_type,
            _digest(fields.get("digest"), place),
            size,
            _platform(fields.get("platform"), place),
            tuple((str(key), str(text)) for key, text in annotations.items()),
            os_features(runs_on, place),
            str(runs_on.get("os.version") or ""),
            str(fields.get("artifactType") or ""),
        )

    @property
    def is_attestation(self) -> bool:
        """Whether an index lists it beside its images: buildx's attestations, other artifacts.

        Sources: https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md
        and descriptor.md, `artifactType`.
        """
        nowhere = self.platform is not None and "unknown" in (
            self.platform.os,
            self.platform.architecture,
        )
        return (
            nowhere
            or (ATTESTATION, "attestation-manifest") in self.annotations
            or self.artifact_type not in ("", *CONFIG_TYPES)
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
        if self.size not in (UNKNOWN_SIZE, len(content)):
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

    @property
    def images(self) -> list[Descriptor]:
        """The entries that may be images: neither attestations nor of other media types."""
        return [
            entry
            for entry in self.manifests
            if entry.media_type in (*MANIFEST_TYPES, *INDEX_TYPES) and not entry.is_attestation
        ]


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
    platform's manifest and `config_digest` its config as the registry serves it.  `runtime` has the
    checked fields of `syncd.oci.runtime`, and no others.
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

    @property
    def created(self) -> datetime | None:
        """When the config says that the image was made (image-spec, config.md, `created`)."""
        said = parse_json(self.raw_config, f"config {self.config_digest}").get("created")
        try:
            made = datetime.fromisoformat(said) if isinstance(said, str) else None
        except ValueError:
            return None
        return made.replace(tzinfo=UTC) if made and made.tzinfo is None else made


def parse_document(content: bytes, descriptor: Descriptor) -> Index | Manifest:
    """Read an index or a manifest; its content says which.  Raise ImageError for any other.

    An artifact that is no container image is refused by the name of its type.
    """
    place = f"manifest {descriptor.digest}"
    fields = parse_json(content, place)
    # Of what only a registry's headers describe, the content alone decides.
    described = "" if descriptor.size == UNKNOWN_SIZE else descriptor.media_type
    media_type = document_type(fields, place, described)
    if media_type in INDEX_TYPES:
        entries = sequence(fields.get("manifests"), f"{place}.manifests")
        return Index(
            tuple(Descriptor.parse(e, f"{place}.manifests[{i}]") for i, e in enumerate(entries))
        )
    layers = sequence(fields.get("layers"), f"{place}.layers")
    config = Descriptor.parse(fields.get("config"), f"{place}.config", untyped="")
    if artifact := artifact_type(fields, config.media_type, media_type):
        raise NoImageError(
            f"{descriptor.digest} is not a container image but an artifact of type "
            f"{artifact!r:.120}",
            "name an image",
        )
    return Manifest(
        content,
        media_type,
        config,
        tuple(Descriptor.parse(e, f"{place}.layers[{i}]") for i, e in enumerate(layers)),
    )


def make_image(
    top: Digest,
    digest: Digest,
    manifest: Manifest,
    raw_config: bytes,
    platform: Platform,
    *,
    judge: bool = False,
) -> Image:
    """Return the image of a manifest and its config; raise ImageError when it is not right.

    With `judge` the config decides whether the image is for `platform`, variant and features of the
    operating system too: no index has said so.
    """
    place = f"config {manifest.config.digest}"
    config = parse_json(raw_config, place)
    rootfs = mapping(config.get("rootfs"), f"{place}.rootfs")
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
    fits = declared is None or (declared.os, declared.architecture) == (
        platform.os,
        platform.architecture,
    )
    if judge and declared is not None and (config.get("variant") or os_features(config, place)):
        fits = platform.distance(declared) is not None and not os_features(config, place)
    if not fits:
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
        runtime=checked_runtime(
            mapping(config.get("config") or {}, f"{place}.config"), f"{place}.config"
        ),
        raw_config=raw_config,
    )


def os_features(platform: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """Return what an image needs of its operating system beyond the ordinary (image-index.md)."""
    features = sequence(platform.get("os.features") or [], f"{place}.os.features")
    return tuple(str(feature) for feature in features)


def _digest(value: object, place: str) -> Digest:
    try:
        return Digest.parse(value if isinstance(value, str) else repr(value))
    except InvalidReferenceError as exc:
        raise ImageError(f"{place}: {exc.what}") from exc


def _platform(value: object, place: str) -> Platform | None:
    if value is None:
        return None
    fields = mapping(value, f"{place}.platform")
    words = [fields.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words):
        raise ImageError(f"{place} has a platform that is not text")
    return Platform.normal(*words) if words[0] and words[1] else None
