"""Container images made for tests, as bytes in memory: layers, manifests, indexes, layouts.

    bottom = layer(file("etc/passwd", b"root"), directory("srv"))
    top = layer(whiteout("etc/passwd"), compression="zstd")
    write_layout(folder, {"latest": index(image(bottom, top), attestation=True)})

`Content.blobs` is all that a registry has to serve for the image, by digest.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from tests.archives import tar

_OCI = "application/vnd.oci.image."
_DOCKER = "application/vnd.docker."


@dataclass(frozen=True)
class Layer:
    """A layer: the blob as it is stored, and the plain tar that its diff_id is of."""

    stored: bytes
    plain: bytes
    compression: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    def media_type(self, *, docker: bool) -> str:
        """Return the media type of the blob."""
        if docker:
            return f"{_DOCKER}image.rootfs.diff.tar{'.' * bool(self.compression)}{self.compression}"
        return f"{_OCI}layer.v1.tar{'+' * bool(self.compression)}{self.compression}"


@dataclass(frozen=True)
class Content:
    """An image or an index: its descriptor, and every blob below it by digest."""

    descriptor: dict[str, Any]
    blobs: dict[str, bytes] = field(repr=False)

    @property
    def digest(self) -> str:
        """The digest a tag of it points at."""
        return str(self.descriptor["digest"])

    @property
    def document(self) -> dict[str, Any]:
        """The manifest or index as JSON."""
        document: dict[str, Any] = json.loads(self.blobs[self.digest])
        return document


def layer(*members: bytes, compression: str = "gzip") -> Layer:
    """Return the layer of these members."""
    return layer_of(tar(*members), compression)


def layer_of(plain: bytes, compression: str = "gzip") -> Layer:
    """Return the layer of a whole tar: `gzip`, `zstd`, or not compressed at all."""
    stored = {
        "": lambda: plain,
        "gzip": lambda: gzip.compress(plain, 1, mtime=0),
        "zstd": lambda: zstandard.compress(plain, 1),
    }[compression]()
    return Layer(stored, plain, compression)


def image(
    *layers: Layer,
    docker: bool = False,
    platform: str = "linux/amd64",
    runtime: Mapping[str, object] | None = None,
) -> Content:
    """Return the image of these layers, oldest first; `runtime` is its config's `config`."""
    os, architecture, *variant = platform.split("/")
    config = {
        "os": os,
        "architecture": architecture,
        **({"variant": variant[0]} if variant else {}),
        "config": dict(runtime or {}),
        "rootfs": {"type": "layers", "diff_ids": [digest(layer.plain) for layer in layers]},
    }
    described_layers = [
        describe(layer.media_type(docker=docker), layer.stored)
        | ({"annotations": dict(layer.annotations)} if layer.annotations else {})
        for layer in layers
    ]
    content = described(config, described_layers, docker=docker)
    return Content(
        content.descriptor, content.blobs | {digest(layer.stored): layer.stored for layer in layers}
    )


def described(
    config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], *, docker: bool = False
) -> Content:
    """Return an image of this config and of layers of which only the descriptors are here."""
    blobs: dict[str, bytes] = {}
    kind = f"{_DOCKER}container.image.v1+json" if docker else f"{_OCI}config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_DOCKER}distribution.manifest.v2+json"
        if docker
        else f"{_OCI}manifest.v1+json",
        "config": _store(blobs, kind, json.dumps(config).encode()),
        "layers": list(layers),
    }
    return document(manifest, blobs)


def artifact(kind: str = "application/vnd.cncf.helm.config.v1+json") -> Content:
    """Return an artifact that is no image, as `helm push` and `oras push` make them."""
    blobs: dict[str, bytes] = {}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}manifest.v1+json",
        "config": _store(blobs, kind, b"{}"),
        "layers": [],
    }
    return document(manifest, blobs)


def index(*contents: Content, docker: bool = False, attestation: bool = False) -> Content:
    """Return an index of images, as buildx pushes it: with an attestation if wanted.

    Each image's platform is read from its config.
    """
    blobs: dict[str, bytes] = {}
    entries = []
    for content in contents:
        blobs |= content.blobs
        entry = dict(content.descriptor)
        if "config" in content.document:
            config = json.loads(content.blobs[content.document["config"]["digest"]])
            keys = ("os", "architecture", "variant")
            entry["platform"] = {key: config[key] for key in keys if key in config}
        entries.append(entry)
    if attestation:
        proof = image(layer(compression=""), platform="unknown/unknown")
        blobs |= proof.blobs
        unknown = {"os": "unknown", "architecture": "unknown"}
        notes = {"vnd.docker.reference.type": "attestation-manifest"}
        entries.append({**proof.descriptor, "platform": unknown, "annotations": notes})
    kind = f"{_DOCKER}distribution.manifest.list.v2+json" if docker else f"{_OCI}index.v1+json"
    return document({"schemaVersion": 2, "mediaType": kind, "manifests": entries}, blobs)


def document(fields: Mapping[str, Any], blobs: Mapping[str, bytes]) -> Content:
    """Return a manifest or index of any fields, above `blobs`."""
    below = dict(blobs)
    descriptor = _store(below, str(fields.get("mediaType", "")), json.dumps(fields).encode())
    return Content(descriptor, below)


def write_layout(folder: Path, named: Mapping[str, Content]) -> Path:
    """Write an OCI image layout of images by name; one named by an empty string has no name."""
    entries = []
    for name, content in named.items():
        notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        entries.append({**content.descriptor, **notes})
        for key, blob in content.blobs.items():
            path = folder / "blobs" / key.replace(":", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    top = {"schemaVersion": 2, "mediaType": f"{_OCI}index.v1+json", "manifests": entries}
    (folder / "index.json").write_text(json.dumps(top))
    return folder


def describe(media_type: str, content: bytes) -> dict[str, Any]:
    """Return the descriptor of a blob."""
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def digest(content: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _store(blobs: dict[str, bytes], media_type: str, content: bytes) -> dict[str, Any]:
    descriptor = describe(media_type, content)
    blobs[descriptor["digest"]] = content
    return descriptor
