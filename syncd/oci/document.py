"""What a document of an image is: an index, a manifest, or something that syncd does not read.

The content decides: the document's own `mediaType`, or its shape where it has none, which OCI
allows.  What a registry's headers say of it is only a hint, since static file servers and proxies
say `application/json` or `text/plain`.

Sources: https://github.com/opencontainers/image-spec/blob/main/manifest.md and image-index.md;
https://distribution.github.io/distribution/spec/deprecated-schema-v1/
"""

from __future__ import annotations

import json
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from syncd.errors import ImageError, LimitError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

VALUES_MAX = 100_000
"""Values of a document at most; the largest of real images have some thousands.  A value takes up
to a hundred bytes of memory and two of a document, so 4 MiB of them would take 100 MiB."""

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (OCI_CONFIG, DOCKER_CONFIG)

_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
# What registries of 2015 and 2016 called a config, besides nothing
# (https://github.com/moby/moby/blob/master/distribution/registry.go, `init`).
_GENERIC_CONFIGS = ("", "application/octet-stream", "application/json", "text/html", "text/plain")


def document_type(fields: dict[str, Any], place: str, described: str = "") -> str:
    """Return the media type of an index or manifest; raise ImageError when it is neither.

    `described` is the type that the descriptor in another document gives it.  A document that calls
    itself otherwise is refused, since two readers could take it for two things (CVE-2021-41190).
    """
    own = fields.get("mediaType") or ""
    if not isinstance(own, str):
        raise ImageError(f"{place} has a mediaType that is not text")
    version = fields.get("schemaVersion")
    if version == 1 or own in _SCHEMA_1 or "fsLayers" in fields:
        raise ImageError(
            f"{place} is of schema version 1, Docker's format of before 2016",
            "push the image again with a current tool, or copy it: skopeo copy --format v2s2",
        )
    if version != 2:
        raise ImageError(
            f"{place} is not of schema version 2", "push the image again with a current tool"
        )
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise ImageError(f"{place} is an index and a manifest at once")
    known = described if described in (*INDEX_TYPES, *MANIFEST_TYPES) else ""
    if own and known and own != known:
        raise ImageError(f"{place} calls itself {own!r:.120}, its descriptor {known!r}")
    found = own or known or _shape(fields)
    if found not in (*INDEX_TYPES, *MANIFEST_TYPES):
        raise ImageError(
            f"{place} has the media type {found!r:.120}, neither an image nor an index"
        )
    return found


def artifact_type(manifest: dict[str, Any], config_type: str, manifest_type: str) -> str:
    """Return what kind of artifact a manifest is; an empty string for a container image.

    Source: https://github.com/opencontainers/image-spec/blob/main/manifest.md, "Guidelines for
    Artifact Usage".
    """
    named = manifest.get("artifactType")
    if named:
        return str(named)
    if config_type in CONFIG_TYPES:
        return ""
    if manifest_type == DOCKER_MANIFEST and config_type in _GENERIC_CONFIGS:
        return ""
    return config_type or "no type"


_LARGE = 256 << 10  # bytes of a document from which one at a time is taken apart
_one = threading.Lock()


def alone(content: bytes) -> AbstractContextManager[object]:
    """Take apart one large document at a time: its values take several times its bytes.

    The thread that does so waits for nobody meanwhile.
    """
    return _one if len(content) > _LARGE else nullcontext()


def parse_json(content: bytes, place: str) -> dict[str, Any]:
    """Return a document's JSON object.

    Raise ImageError when it is none, and LimitError when it has more than VALUES_MAX values.
    """
    return mapping(_parsed(content, place), place)


def parse_array(content: bytes, place: str) -> list[Any]:
    """Return the elements of an array that comes without its brackets; raise as `parse_json`."""
    found: list[Any] = _parsed(b"[%b]" % content, place)
    return found


def _parsed(content: bytes, place: str) -> Any:
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > VALUES_MAX:
        raise LimitError(f"{place} has more than {VALUES_MAX} values, which no real image has")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise ImageError(f"{place} is not JSON: {exc!s:.200}") from exc


def mapping(value: object, place: str) -> dict[str, Any]:
    """Return a JSON object of a document; raise ImageError when it is none."""
    if not isinstance(value, dict):
        raise ImageError(f"{place} is not a JSON object")
    return value


def sequence(value: object, place: str) -> list[Any]:
    """Return a JSON array of a document; raise ImageError when it is none."""
    if not isinstance(value, list):
        raise ImageError(f"{place} is not a JSON array")
    return value


def _shape(fields: dict[str, Any]) -> str:
    """Return the type that a document without a type has by its fields; nothing if none."""
    if "manifests" in fields:
        return OCI_INDEX
    if not {"layers", "config"} <= fields.keys():
        return ""
    layers = fields["layers"] if isinstance(fields["layers"], list) else []
    types = [layer.get("mediaType") for layer in layers if isinstance(layer, dict)]
    docker = any(str(media_type).startswith("application/vnd.docker.") for media_type in types)
    return DOCKER_MANIFEST if docker else OCI_MANIFEST
