"""What a container made from the template will lack, or why none can be made: found while writing.

`Findings.over` passes the entries of a plan on.  What Proxmox VE's extractor would lose without a
word is taken out or put right; what it stumbles over stays.  Both are told in warnings: one
sentence for each kind, with the first names and how many more there are.  Only members that are in
the template count, never what an upper layer removed.  Memory is bounded by a few names.  Pure.

An unprivileged container has the ids 0 to 65535 (Proxmox VE maps as many, /etc/subuid), and may not
make device nodes (mknod(2)).  GNU tar, as Proxmox VE calls it for a `rootfs` template, leaves out
what is below `./dev`, and does not set the owner of `./` itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from syncd.convert import capabilities
from syncd.convert.overlay import Entry
from syncd.errors import ImageError
from syncd.formats import Format
from syncd.oci import Image, is_init
from syncd.tar import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    FIFO,
    HARD_LINK,
    Member,
    acl_fault,
    acl_ids,
    class_permissions,
    quote,
    with_ids,
)

_NAMED = 3  # members that a warning names
_LARGEST_ID = 65535
_USUAL = {"User": ("root", "0", "root:root", "0:0"), "WorkingDir": ("/",), "StopSignal": ("",)}
_DEVICES = (CHARACTER_DEVICE, BLOCK_DEVICE)
_WORDS = {CHARACTER_DEVICE: "character device", BLOCK_DEVICE: "block device", FIFO: "fifo"}


class Names(Protocol):
    """The users and groups of an image."""

    @property
    def users(self) -> Mapping[bytes, int]:
        """The ids of users by name."""

    @property
    def groups(self) -> Mapping[bytes, int]:
        """The ids of groups by name."""


def lost_startup(image: Image) -> tuple[str, ...]:
    """Return a sentence on what a `rootfs` template cannot say of how the image is run.

    Proxmox VE takes the entrypoint and the environment beside such a template, but neither user nor
    working directory nor stop signal.  An image that starts an init wants the root user, and is
    stopped as every container is.
    """
    runtime = image.runtime
    command = [*runtime.get("Entrypoint", ()), *runtime.get("Cmd", ())]
    lost = {
        key: runtime[key]
        for key, usual in _USUAL.items()
        if runtime.get(key) and runtime[key] not in usual
    }
    if is_init(command):
        lost.pop("StopSignal", None)
    if not lost:
        return ()
    told = ", ".join(f"{key} {value!r:.80}" for key, value in lost.items())
    return (
        f'a template of the format "rootfs" cannot say how this image is run ({told}): its '
        'container runs as root in "/" and is stopped like any other; use the format "oci" if '
        "Proxmox VE is 9.1 or later",
    )


@dataclass(slots=True)
class _Affected:
    """The members of one kind: how many, and the first of them as text."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, member: Member, detail: str) -> None:
        """Count a member; `detail` says what it is about it."""
        self.count += 1
        if self.count <= _NAMED:
            self.names.append(f"{quote(member.name)} ({detail})")

    def sentence(self, before: str, behind: str) -> list[str]:
        """Return a sentence with the members in its middle, or none if there are no members."""
        more = f" and {self.count - _NAMED} more" if self.count > _NAMED else ""
        return [f"{before}: {', '.join(self.names)}{more}; {behind}"] if self.count else []


class Findings:
    """Looks at each entry of one plan on its way to a template of one format.

    `names` are those of the image's own users and groups, for ACLs; without them none is known.
    """

    def __init__(self, template_format: Format, names: Names | None = None) -> None:
        self._format = template_format
        self._names = names
        self._owners = _Affected()
        self._devices = _Affected()
        self._emptied = _Affected()
        self._acls = _Affected()
        self._capabilities = _Affected()

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Sentences on why no unprivileged container can be made, as far as was looked."""
        return (
            *self._owners.sentence(
                f"no unprivileged container has the ids beyond {_LARGEST_ID}, and none can be made "
                "with these owners or ACLs",
                "give the members to others when the image is built",
            ),
            *self._devices.sentence(
                "no unprivileged container can be made with device nodes outside ./dev",
                "leave them out when the image is built",
            ),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """All sentences for whoever asked for the template, the obstacles first."""
        return (
            *self.obstacles,
            *self._emptied.sentence(
                'Proxmox VE makes empty files of these when the template\'s format is "oci"',
                'use the format "rootfs", or make them when the container starts',
            ),
            *self._acls.sentence(
                "access control lists that cannot be kept are left out",
                "write them with a mask, and with ids or names that the image itself knows",
            ),
            *self._capabilities.sentence(
                "capabilities of revision 3, for the root user of another machine, are written as "
                "revision 2, for the container's own",
                "check that these files are meant to have them",
            ),
        )

    def refuse_obstacles(self) -> None:
        """Raise ImageError where no unprivileged container can be made."""
        if self.obstacles:
            raise ImageError(
                "; ".join(self.obstacles),
                "or set strict = false for the image, and it is only told",
            )

    def over(self, plan: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries as the template has them, and look at each."""
        for entry in plan:
            member = kept = entry.member
            has_acl = member.access_acl or member.default_acl
            is_foreign = member.uid > _LARGEST_ID or member.gid > _LARGEST_ID
            if has_acl:
                kept = self._with_lasting_acls(kept)
            if capabilities.NAME in member.xattrs:
                kept = self._with_own_root(kept)
            if has_acl or is_foreign or member.kind in _WORDS:
                self._look_at(kept)
            yield entry if kept is member else Entry(kept, entry.layer)

    def _look_at(self, member: Member) -> None:
        """Find what the extractor fails at, or makes an empty file of."""
        is_in_dev = member.name.startswith(b"./dev/") and member.name != b"./dev/"
        is_left_out = is_in_dev or member.name == b"./"
        if member.kind == HARD_LINK or (is_left_out and self._format is Format.ROOTFS):
            return
        if member.uid > _LARGEST_ID or member.gid > _LARGEST_ID:
            self._owners.add(member, f"{member.uid}:{member.gid}")
        elif member.access_acl or member.default_acl:
            ids = [*acl_ids(member.access_acl), *acl_ids(member.default_acl)]
            if max(ids, default=0) > _LARGEST_ID:
                self._owners.add(member, f"an ACL for {max(ids)}")
        if member.kind in _WORDS and not is_in_dev:
            if self._format is Format.OCI:
                self._emptied.add(member, _WORDS[member.kind])
            elif member.kind in _DEVICES:
                self._devices.add(member, _WORDS[member.kind])

    def _with_lasting_acls(self, member: Member) -> Member:
        """Return the member with those of its ACLs that a template can have."""
        access = self._lasting(member, member.access_acl)
        default = self._lasting(member, member.default_acl)
        mode = member.mode
        if access and access != member.access_acl:
            # The reader took the ACL for one that cannot be kept.
            mode = mode & ~0o070 | class_permissions(access) << 3
        return replace(member, mode=mode, access_acl=access, default_acl=default)

    def _lasting(self, member: Member, text: bytes) -> bytes:
        """Return one ACL of a member, with ids for names; nothing where it cannot be kept."""
        fault = acl_fault(text) if text else ""
        if fault and self._names is not None:
            text = with_ids(text, self._names.users, self._names.groups)
            fault = acl_fault(text)
        if fault:
            self._acls.add(member, fault)
            return b""
        return text

    def _with_own_root(self, member: Member) -> Member:
        """Return the member with capabilities that count for the root user of any container."""
        value, root = capabilities.without_root(member.xattrs[capabilities.NAME])
        if root is None:
            return member
        if root:
            self._capabilities.add(member, f"root id {root}")
        return replace(member, xattrs={**member.xattrs, capabilities.NAME: value})
