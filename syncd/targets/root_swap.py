"""A new root file system under a container: the steps in their order, and what is known of each.

A swap is written down before each step, so that a process that finds the swap later can finish it
or undo it.  The way was measured on pve-container 6.1.10 (facts of the issue "a newer image under a
running one").  Pure values, and the protocol of a host that does the steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol, Self, runtime_checkable

from syncd.formats import Format
from syncd.progress import Advance
from syncd.targets.container import Startup
from syncd.targets.origin import Origin
from syncd.targets.target import ContainerHost


class SwapStep(StrEnum):
    """What is done next; the members are in the order in which a swap runs through them."""

    STOP = "stop"
    SNAPSHOT = "snapshot"
    UNPROTECT = "unprotect"
    ALLOCATE = "allocate"
    DETACH = "detach"
    RESERVE = "reserve"
    UNPACK = "unpack"
    INSPECT = "inspect"
    CARRY = "carry"
    REMOVE = "remove"
    SWAP = "swap"
    START = "start"
    READY = "ready"
    PROTECT = "protect"

    @property
    def meaning(self) -> str:
        """One line for a person who reads the steps before they are done."""
        return _MEANINGS[self]


_MEANINGS = {
    SwapStep.STOP: "shut the container down",
    SwapStep.SNAPSHOT: "take a snapshot of its root and its data volumes",
    SwapStep.UNPROTECT: "lift its protection for the time of the replacement",
    SwapStep.ALLOCATE: "allocate the new root as a mount point of the container",
    SwapStep.DETACH: "detach the new root, which the container owns from now on",
    SwapStep.RESERVE: "choose the VMID of a throw-away container",
    SwapStep.UNPACK: "unpack the template into the new root, by making the throw-away container",
    SwapStep.INSPECT: "read entrypoint and variables that Proxmox VE took from the image",
    SwapStep.CARRY: "carry files over from the old root",
    SwapStep.REMOVE: "remove the throw-away container; the new root stays",
    SwapStep.SWAP: "put the new root in the place of the old one, which is kept as unused volume",
    SwapStep.START: "start the container",
    SwapStep.READY: "wait until the container is ready, else go back",
    SwapStep.PROTECT: "protect the container again",
}


SSH_HOST_KEYS = "/etc/ssh/ssh_host_*"
"""By what a machine is known to those who log in: a new root has others, or none."""


@dataclass(frozen=True, slots=True)
class SwapOrder:
    """What a swap is planned from: the image, its template, and how the images want to be run.

    `old_startup` is that of the image that the container was made from; None where that image is
    not known any more.  `carry` are the paths to carry over from the old root, or None for
    `SSH_HOST_KEYS` where the host can.  With `snapshot`, the swap begins with one.
    """

    image: Origin
    template: str
    form: Format
    startup: Startup
    old_startup: Startup | None = None
    carry: tuple[str, ...] | None = None
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class RootSwap:
    """One swap: whose root it is, from which volume to which, and how to go back.

    `image` is REFERENCE@DIGEST; `template` is the template's volume id; `mark` tells what belongs
    to this swap alone.  `old_root` is the whole value of `rootfs` before the swap, `new_root` the
    whole value after the swap, known once the volume is allocated.  `before` has the container's
    options that the swap changes, as they were (None: not set); `after` has them as they will be.
    `scratch` is the VMID of the throw-away container; `carry` are the paths to carry over from the
    old root; `has_address` tells whether the container is configured to get an address when it
    runs.  `startup` are the options that the throw-away container is created with, for a template
    that does not contain them.  `snapshot` is the name of the snapshot that is taken first; empty
    for none.
    """

    vmid: int
    node: str
    image: str
    template: str
    mark: str
    old_root: str
    mount_key: str
    unused_key: str
    size: int
    hostname: str
    was_running: bool
    unprivileged: bool
    protected: bool
    description: str
    has_address: bool = True
    startup: Mapping[str, str] = field(default_factory=dict)
    known_before: Mapping[str, str] = field(default_factory=dict)
    new_root: str = ""
    scratch: int | None = None
    carry: tuple[str, ...] = ()
    snapshot: str = ""
    before: Mapping[str, str | None] = field(default_factory=dict)
    after: Mapping[str, str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def old_volume(self) -> str:
        """The volume id of the old root."""
        return volume_of(self.old_root)

    @property
    def new_volume(self) -> str:
        """The volume id of the new root; empty until it is allocated."""
        return volume_of(self.new_root)

    @property
    def mount_path(self) -> str:
        """The path of the mount point by which the new root is allocated; it carries the mark."""
        return f"/.syncd-{self.mark}"

    @property
    def steps(self) -> tuple[SwapStep, ...]:
        """The steps that this swap takes."""
        left_out = set()
        if not self.was_running:
            left_out |= {SwapStep.STOP, SwapStep.START, SwapStep.READY}
        if not self.snapshot:
            left_out |= {SwapStep.SNAPSHOT}
        if not self.carry:
            left_out |= {SwapStep.CARRY}
        if not self.protected:
            left_out |= {SwapStep.UNPROTECT, SwapStep.PROTECT}
        return tuple(step for step in SwapStep if step not in left_out)

    def text(self) -> str:
        """Return the swap as text for the ledger; `parse` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote; raise ValueError or TypeError for anything else."""
        fields: Any = json.loads(text)
        if not isinstance(fields, dict):
            raise TypeError(f"{text!r:.80} is no swap")
        lists = {key: tuple(fields.get(key, ())) for key in ("warnings", "carry")}
        return cls(**fields | lists)


@dataclass(frozen=True, slots=True)
class Guest:
    """A container as its host has it: where it is, whether it runs, what its description says.

    `root` is the volume id of its root, and `arch` what it is configured to run.
    """

    vmid: int
    node: str
    hostname: str
    running: bool
    description: str
    addresses: tuple[str, ...] = ()
    root: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True)
class Twin:
    """The fields of a request for a container like another; `warnings` say what they leave out."""

    fields: Mapping[str, object]
    warnings: tuple[str, ...]


class RootSwaps(Protocol):
    """The steps of swaps on one host.  Every method blocks and may raise PublishError."""

    def guest(self, vmid: int) -> Guest | None:
        """Return a container, or None where the host has none, or shows none, of this VMID."""

    def exists(self, vmid: int) -> bool:
        """Tell whether the host has a container of this VMID, whether or not it shows it."""

    def twin(self, guest: Guest) -> Twin:
        """Return what a container beside this one is made from; raise RequestError for why not."""

    def plan(self, guest: Guest, order: SwapOrder) -> RootSwap:
        """Plan a swap; raise RequestError, which names why the root cannot be replaced."""

    def do(self, step: SwapStep, swap: RootSwap, advance: Advance) -> RootSwap:
        """Do one step, any but READY; return the swap with what the step found out."""

    def undo(self, swap: RootSwap, advance: Advance, *, keep_snapshot: bool = False) -> None:
        """Ensure that the container is as it was, and that nothing of the swap is left.

        With `keep_snapshot` the snapshot that the swap began with is left, if it was taken.
        """

    def is_swapped(self, swap: RootSwap) -> bool:
        """Return whether the container has the new root."""

    def running(self, swap: RootSwap) -> bool:
        """Return whether the container runs."""

    def addresses(self, swap: RootSwap) -> tuple[str, ...]:
        """Return the container's addresses; none while it is down."""

    def remove_old(self, swap: RootSwap) -> bool:
        """Destroy the old root; return False where it is not an unused volume any more.

        The snapshot that the swap began with goes as well, since it has the old root.
        """


@runtime_checkable
class RootHost(ContainerHost, Protocol):
    """A target whose containers can get a new root."""

    @property
    def roots(self) -> RootSwaps:
        """The steps of swaps on this host."""


def volume_of(value: str) -> str:
    """Return the volume id of the value of a root, a mount point, or an unused volume."""
    return value.partition(",")[0].removeprefix("volume=")
