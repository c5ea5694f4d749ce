"""A template that syncd published, with its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from syncd.formats import Format
from syncd.oci import Digest, Platform, Reference


@dataclass(frozen=True, slots=True)
class Template:
    """A template that syncd published, with its provenance.

    `digest` is what the tag pointed at; `file_digest` and `size` (bytes) are the file's own.
    `private` says that a caller's login opened the image: others have to prove that they may have
    it, too.
    """

    name: str
    target: str
    reference: Reference
    format: Format
    platform: Platform
    digest: Digest
    manifest_digest: Digest
    config_digest: Digest
    diff_ids: tuple[Digest, ...]
    file_digest: Digest
    size: int
    created: datetime
    volumes: tuple[str, ...]
    syncd_version: str
    pinned: bool = False
    private: bool = False


@dataclass(frozen=True, slots=True)
class Intention:
    """A template that was to be published; `seq` tells this time from every other time."""

    template: Template
    seq: int
