"""Templates: their formats, names and volume ids, where they are published, which may go.

Pure decisions; the doors `proxmox` and `directory` act on them.
"""

from __future__ import annotations

import enum
import re
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from syncd.errors import ConfigError, PublishError
from syncd.job import Progress
from syncd.manifest import Image
from syncd.reference import Digest, Platform, Reference

DEFAULT_NAME = "{registry}_{namespace}_{image}_{tag}_{config12}"
"""The name that the opensource-server web UI looks for."""

_NAME_MAX = 255
_FIELDS = ("registry", "namespace", "image", "tag", "config12", "digest12", "platform")
_UNCLEAN = re.compile(r"[^A-Za-z0-9_.-]")


class Format(enum.StrEnum):
    """What a template file is."""

    ROOTFS = "rootfs"
    OCI = "oci"

    @property
    def suffix(self) -> str:
        """The file's ending: PVE tells the formats apart by it."""
        return ".tar.zst" if self is Format.ROOTFS else ".tar"


@dataclass(frozen=True, slots=True)
class Volume:
    """A template as a storage lists it: volume id, size in bytes, and the node of a local one."""

    volid: str
    size: int
    node: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.volid.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Template:
    """A template that syncd published, with its provenance.

    `digest` is what the tag pointed at; `file_digest` and `size` (bytes) are the file's own.
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `syncd check`: whether something is as it should be, and what to do if not."""

    ok: bool
    subject: str
    detail: str


class Target(Protocol):
    """A place where templates are published.  Blocking; safe to use from several threads."""

    name: str

    def format(self) -> Format:
        """Return the best format for this target: what `auto` means here."""

    def volumes(self) -> list[Volume]:
        """Return every template the target lists, syncd's and others', once per node."""

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the places (nodes, or the target itself) that do not list this file.

        A file of another size than `size` bytes does not count, where that is known.
        """

    def local(self, name: str) -> Path | None:
        """Return where this host can read a published file, or None."""

    def publish(self, file: Path, name: str, digest: Digest, progress: Progress) -> list[Volume]:
        """Ensure that `file` is listed as `name` in every place; return where it is.

        Never overwrites: a name carries its content's digest.  What could not be reached now is
        made up at the next sweep.  Raise PublishError or TargetUnavailableError.
        """

    def delete(self, volume: Volume) -> None:
        """Ensure that this volume is gone."""

    def check(self) -> list[Finding]:
        """Tell whether the target can do its duty."""


def check_pattern(pattern: str) -> str:
    """Return a name pattern if it can be filled in; raise ConfigError."""
    try:
        fields = [field[1:] for field in string.Formatter().parse(pattern) if field[1] is not None]
    except ValueError as exc:
        raise ConfigError(f"the name pattern {pattern!r} is malformed: {exc}") from exc
    if any(layout or conversion for _, layout, conversion in fields):
        raise ConfigError(f"the name pattern {pattern!r} may have only names between its braces")
    names = {name for name, _, _ in fields if name is not None}
    unknown = names - set(_FIELDS)
    if unknown:
        raise ConfigError(
            f"the name pattern {pattern!r} has unknown fields: {', '.join(sorted(unknown))}",
            hint=f"there are: {', '.join(_FIELDS)}",
        )
    if not names & {"config12", "digest12"}:
        raise ConfigError(
            f"the name pattern {pattern!r} has no digest, so a new version would need to "
            "overwrite the old one",
            hint="put {config12} or {digest12} into it",
        )
    return pattern


def file_name(pattern: str, reference: Reference, image: Image, form: Format) -> str:
    """Return the file name of an image's template; raise PublishError when it is too long.

    PVE turns every other character into `_`; so the name is made of those it keeps, and what is
    asked for is what gets listed.  A repository of one part has no namespace, nor its underscore.
    """
    if not reference.namespace:
        pattern = pattern.replace("{namespace}_", "")
    tag = reference.tag or (reference.digest or image.digest).encoded[:12]
    filled = pattern.format(
        registry=reference.registry,
        namespace=reference.namespace,
        image=reference.image,
        tag=tag,
        config12=image.config_digest.encoded[:12],
        digest12=image.manifest_digest.encoded[:12],
        platform=image.platform,
    )
    name = _UNCLEAN.sub("_", filled).lstrip(".") + form.suffix
    if len(name) > _NAME_MAX:
        raise PublishError(
            f"the template name for {reference} has {len(name)} characters, "
            f"more than the {_NAME_MAX} of a file name",
            "configure a shorter name pattern",
        )
    return name


def volume_id(storage: str, name: str) -> str:
    """Return PVE's name of a template: `storage:vztmpl/NAME`."""
    return f"{storage}:vztmpl/{name}"


def surplus(
    versions: Sequence[Template], keep: int, in_use: Collection[str] = ()
) -> list[Template]:
    """Return the versions of one tag on one target that retention lets go, oldest first.

    Never the newest `keep` (at least one: the last good version), nor a pinned one, nor one whose
    volume ids are among those `in_use`.
    """
    newest_first = sorted(versions, key=lambda one: one.created, reverse=True)
    return [
        one
        for one in reversed(newest_first[max(keep, 1) :])
        if not one.pinned and not set(one.volumes) & set(in_use)
    ]
