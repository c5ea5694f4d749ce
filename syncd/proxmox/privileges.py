"""What an API token must be allowed to do, and the commands that allow exactly that.

A token with privilege separation may do what both it and its user may; so both are granted.

Source: "permissions" of each call in the API description, and `pveum help`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LISTING = ("Datastore.Audit", "Datastore.AllocateSpace")
"""Either of them shows a storage and what lies in it."""


@dataclass(frozen=True, slots=True)
class Duty:
    """Something syncd does, and the privileges it takes on a path; with `either`, any of them."""

    name: str
    path: str
    privileges: tuple[str, ...]
    either: bool = False

    def missing(self, held: Mapping[str, object]) -> tuple[str, ...]:
        """Return what is to be granted, given the privileges that are held on the path."""
        lacking = tuple(one for one in self.privileges if one not in held)
        if self.either:
            return self.privileges[:1] if len(lacking) == len(self.privileges) else ()
        return lacking


def storage_duties(storage: str) -> tuple[Duty, ...]:
    """Return what is done with templates of a storage."""
    path = f"/storage/{storage}"
    return (
        Duty("list", path, LISTING, either=True),
        Duty("upload", path, ("Datastore.AllocateTemplate",)),
        Duty("delete", path, ("Datastore.Allocate",)),
    )


def container_duties(rootfs_storage: str, bridge: str, pool: str | None) -> tuple[Duty, ...]:
    """Return what the creation of a container takes."""
    privileges = (
        "VM.Allocate",
        "VM.Audit",
        "VM.Config.CPU",
        "VM.Config.Disk",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.PowerMgmt",
    )
    return (
        Duty("create", f"/pool/{pool}" if pool else "/vms", privileges),
        Duty("create", f"/storage/{rootfs_storage}", ("Datastore.AllocateSpace",)),
        Duty("create", f"/sdn/zones/localnetwork/{bridge}", ("SDN.Use",)),
    )


def granting(token_id: str | None, path: str, privileges: Iterable[str]) -> str:
    """Return the commands that grant exactly these privileges on this path to the token.

    The role's name says what is in it, so it does not matter if it is there already.
    """
    if token_id is None:
        return ""
    names = tuple(privileges)
    user = token_id.partition("!")[0]
    role = "Syncd-" + "-".join(name.replace(".", "") for name in names)
    return (
        f"grant it: pveum role add {role} --privs {shlex.quote(','.join(names))}; "
        f"pveum acl modify {path} --roles {role} --users {user} --tokens {shlex.quote(token_id)}"
    )
