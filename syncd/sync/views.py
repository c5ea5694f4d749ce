"""Conditions, templates and containers as JSON, as the API and the command line show them.

The types are also the source of the API's description: a field that is added here is described
there, and one that a function leaves out is a type error.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic reads typing's own only since Python 3.12

from syncd.sync.conditions import Condition, Lack, Status
from syncd.sync.container_list import ListedContainer
from syncd.sync.replacement import Replaced, ReplacedBehind, Replacement, ReplacementState
from syncd.sync.view_types import EXACT, DigestText, Moment, VolumeId
from syncd.targets import Container, SwapStep


@with_config(EXACT)
class ConditionView(TypedDict):
    """What is true of a watched tag in a target now, since when, and why."""

    reference: Annotated[
        str,
        Field(description="The watched tag; without a tag, those that a list has yet to name."),
    ]
    target: Annotated[str, Field(description="The target's name in the configuration.")]
    status: Status
    since: Annotated[Moment, Field(description="When the status began.")]
    reason: Annotated[
        str | None,
        Field(description="Why it is failing or absent, or what a container of it will lack."),
    ]
    passing: Annotated[bool, Field(description="Whether the failure may pass by itself.")]
    tries: Annotated[int, Field(ge=0, description="Failures in a row.")]
    next_try: Annotated[
        Moment | None, Field(description="When it is tried again; null for the next sweep.")
    ]
    checked: Annotated[Moment, Field(description="When the tag was last looked at.")]
    updated: Annotated[
        Moment | None, Field(description="When the target last held what the tag means.")
    ]
    digest: Annotated[DigestText | None, Field(description="What the tag pointed at then.")]
    volumes: tuple[VolumeId, ...]
    lack: Annotated[
        Lack | None,
        Field(
            description="What is absent: the tag in the registry, the watch in the "
            "configuration, or the file in the target."
        ),
    ]


@with_config(EXACT)
class ContainerView(TypedDict):
    """A container as it was made."""

    vmid: int
    node: str
    hostname: str
    volume: Annotated[str, Field(description="The template of the container, STORAGE:vztmpl/NAME.")]
    ostype: Annotated[str, Field(description="The distribution that Proxmox VE recognised.")]
    running: Annotated[bool, Field(description="Whether the container was started.")]
    warnings: Annotated[
        tuple[str, ...], Field(description="Sentences on what to know about the container.")
    ]


@with_config(EXACT)
class ListedContainerView(TypedDict):
    """A container that syncd made, and whether it is behind its tag."""

    target: Annotated[str, Field(description="The target's name in the configuration.")]
    vmid: int
    node: str
    hostname: str
    running: bool
    image: Annotated[
        str | None, Field(description="The image's reference; null if that cannot be read.")
    ]
    digest: Annotated[DigestText | None, Field(description="The manifest that it was made from.")]
    current: Annotated[DigestText | None, Field(description="The manifest that the tag means now.")]
    behind: Annotated[
        bool | None,
        Field(description="Whether the tag means another image now; null if that is not known."),
    ]
    fault: Annotated[str | None, Field(description="Why something is not known.")]


def condition_json(condition: Condition) -> ConditionView:
    """Return a condition as JSON."""
    return {
        "reference": str(condition.place.reference),
        "target": condition.place.target,
        "status": condition.status,
        "since": condition.since.isoformat(),
        "reason": condition.reason or None,
        "passing": condition.passing,
        "tries": condition.tries,
        "next_try": condition.next_try.isoformat() if condition.next_try else None,
        "checked": condition.checked.isoformat(),
        "updated": condition.updated.isoformat() if condition.updated else None,
        "digest": str(condition.digest) if condition.digest else None,
        "volumes": condition.volumes,
        "lack": condition.lack,
    }


def container_json(container: Container) -> ContainerView:
    """Return a container as JSON."""
    return {
        "vmid": container.vmid,
        "node": container.node,
        "hostname": container.hostname,
        "volume": container.volume,
        "ostype": container.ostype,
        "running": container.running,
        "warnings": container.warnings,
    }


@with_config(EXACT)
class ReplacedView(TypedDict):
    """A container that has the image now, or what would be done for one."""

    vmid: int
    node: str
    target: Annotated[str, Field(description="The target's name in the configuration.")]
    image: Annotated[str, Field(description="The image, REFERENCE@DIGEST.")]
    done: Annotated[bool, Field(description="False where only the steps were asked for.")]
    already: Annotated[bool, Field(description="Whether it had the image before.")]
    steps: Annotated[tuple[SwapStep, ...], Field(description="What is done, in this order.")]
    old_root: Annotated[str | None, Field(description="The volume id of the old root.")]
    new_root: Annotated[str | None, Field(description="The volume id of the new root.")]
    kept_as: Annotated[
        str | None, Field(description="The container's option that keeps the old root.")
    ]
    snapshot: Annotated[
        str | None, Field(description="The name of the snapshot that was taken first.")
    ]
    warnings: Annotated[tuple[str, ...], Field(description="Sentences on what differs or is lost.")]


def replaced_json(replaced: Replaced) -> ReplacedView:
    """Return a replacement as JSON."""
    swap = replaced.swap
    return {
        "vmid": replaced.vmid,
        "node": replaced.node,
        "target": replaced.target,
        "image": replaced.image,
        "done": replaced.done,
        "already": swap is None,
        "steps": swap.steps if swap else (),
        "old_root": swap.old_volume if swap else None,
        "new_root": (swap.new_volume or None) if swap else None,
        "kept_as": swap.unused_key if swap else None,
        "snapshot": (swap.snapshot or None) if swap and replaced.done else None,
        "warnings": replaced.warnings,
    }


@with_config(EXACT)
class ReplacedBehindView(TypedDict):
    """What became of the containers behind a tag."""

    replaced: list[ReplacedView]
    failed: Annotated[int | None, Field(description="The VMID of the one that ended the row.")]
    error: Annotated[str | None, Field(description="Why that one could not be replaced.")]
    left: Annotated[tuple[int, ...], Field(description="The VMIDs that were not begun.")]


def replaced_behind_json(behind: ReplacedBehind) -> ReplacedBehindView:
    """Return as JSON what became of the containers behind a tag."""
    return {
        "replaced": [*map(replaced_json, behind.replaced)],
        "failed": behind.failed,
        "error": str(behind.error) if behind.error else None,
        "left": behind.left,
    }


@with_config(EXACT)
class ReplacementView(TypedDict):
    """A replacement that was broken off, and how it was ended."""

    vmid: int
    node: str
    target: Annotated[str, Field(description="The target's name in the configuration.")]
    image: Annotated[str, Field(description="The image, REFERENCE@DIGEST.")]
    state: ReplacementState
    reason: Annotated[str, Field(description="Why the container went back; else empty.")]


def replacement_json(replacement: Replacement) -> ReplacementView:
    """Return a replacement of the ledger as JSON."""
    return {
        "vmid": replacement.swap.vmid,
        "node": replacement.swap.node,
        "target": replacement.target,
        "image": replacement.swap.image,
        "state": replacement.state,
        "reason": replacement.reason,
    }


def listed_json(listed: ListedContainer) -> ListedContainerView:
    """Return a container that syncd made as JSON."""
    found, origin = listed.container, listed.container.origin
    return {
        "target": listed.target,
        "vmid": found.vmid,
        "node": found.node,
        "hostname": found.hostname,
        "running": found.running,
        "image": str(origin.tagged) if origin else None,
        "digest": str(origin.image.digest) if origin else None,
        "current": str(listed.current) if listed.current else None,
        "behind": listed.is_behind,
        "fault": listed.fault or None,
    }
