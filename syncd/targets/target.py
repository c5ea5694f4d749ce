"""The protocol of a target, which is a place where templates are published.

This package has two targets: a plain folder and a Proxmox VE cluster.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from syncd.formats import Format
from syncd.oci import Digest
from syncd.progress import Progress
from syncd.targets.container import Container, ContainerSpec, FoundContainer, Startup
from syncd.targets.origin import Origin


@dataclass(frozen=True, slots=True)
class Volume:
    """A template as a storage lists it.

    `volid` is the volume id and `size` is in bytes; `node` is None for a shared storage.
    """

    volid: str
    size: int
    node: str | None = None

    @property
    def name(self) -> str:
        """The name of the template's file."""
        return self.volid.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Space:
    """What is free, and what there is in all, in a place of a target; in bytes."""

    place: str
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """An image as containers are made from it: its template, how it wants to be run, its name.

    `volumes` lists the template in each place that has it, and `nodes` where it can run; None is
    everywhere.
    """

    volumes: tuple[Volume, ...]
    format: Format
    startup: Startup
    origin: Origin
    nodes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of `syncd check`: what was checked, whether it is good, and what to do if not."""

    ok: bool
    subject: str
    detail: str


class Target(Protocol):
    """A place where templates are published.

    Its methods block, and several threads may call them at a time.
    """

    name: str

    def format(self) -> Format:
        """Return the best format for this target, which `format = "auto"` chooses."""

    def volumes(self) -> list[Volume]:
        """Return every template that the target lists, whoever published it.

        A template on several nodes is returned once for each node.  Raise PublishError when the
        target cannot be asked.
        """

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the places (nodes, or the target itself) that do not list this file.

        With `size`, in bytes, a file of another size counts as missing.
        """

    def local(self, name: str) -> Path | None:
        """Return the path of a published file, or None where this host cannot read it."""

    def publish(self, file: Path, name: str, digest: Digest, progress: Progress) -> list[Volume]:
        """Ensure that `file` is listed as `name` in every place; return the volumes.

        Another file is never overwritten, since a name carries the digest of the content.  A
        place that cannot be reached now gets the file at the next sweep.  A file that lies there
        under the name counts when it is proven to be the same: by its bytes where this host reads
        them, else by its size; one that grows is waited for.  Raise WrongFileError when another
        file has the name, PublishError when a place refuses, TargetUnavailableError when no place
        can be reached.
        """

    def remove_part(self, name: str) -> bool:
        """Ensure that nothing hidden is left of a publication of `name` whose process died.

        Return whether there was something.  What is being published just now is left alone.  Raise
        PublishError.
        """

    def delete(self, volume: Volume) -> None:
        """Ensure that this volume does not exist; raise PublishError when it stays."""

    def check(self) -> list[CheckResult]:
        """Return what of the target is usable and what is not, for `syncd check`."""


@runtime_checkable
class RoomyTarget(Target, Protocol):
    """A target that can tell before a job whether it has room for a template."""

    def require_room(self, name: str, size: int) -> None:
        """Raise NoRoomError unless a file of about `size` bytes can become `name` somewhere.

        The target's reserve stays free.  Raise PublishError when the target cannot be asked.
        """


@runtime_checkable
class MeasuredTarget(Target, Protocol):
    """A target that can tell how much space it has."""

    def space(self) -> list[Space]:
        """Return the space of each place that can be asked; raise PublishError when none can."""


@runtime_checkable
class ContainerHost(Target, Protocol):
    """A target that can also create containers from its templates."""

    def create(
        self,
        request: ContainerSpec,
        image: PublishedImage,
        progress: Progress,
        *,
        again: bool = False,
    ) -> Container:
        """Create a container from a published image; return it once it exists.

        The container carries the image's origin, so that it is found again.  With `again`, a
        container of this host name with the origin's mark is completed instead.  Raise RequestError
        when the request cannot be fulfilled as it is, PublishError when the host refuses or fails.
        """

    def machines(self) -> dict[str, str]:
        """Return the hardware of each online node, such as `x86_64`, where the host tells it."""

    def containers(self, among: Collection[int] | None = None) -> list[FoundContainer]:
        """Return the containers of some VMIDs, or all; raise PublishError when nobody answers."""
