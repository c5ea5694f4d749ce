"""The privileges that an API token needs, and the commands that grant these and take none away.

A token with privilege separation has only the privileges that its user has, too; so the commands
grant them to both.

Source: "permissions" of each call in the official description of the API, and `pveum help`.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LISTING = ("Datastore.Audit", "Datastore.AllocateSpace")
"""Each of these privileges shows a storage and its content."""
ON_REPLACED = ("VM.Audit", "VM.Config.Disk", "VM.Config.Options", "VM.PowerMgmt")
"""What it takes on a container to give it a new root, where no `VM.Allocate` is among it."""
TO_SNAPSHOT = ("VM.Snapshot",)
"""What it takes besides to take a snapshot of the container before, and to delete it."""
ON_SCRATCH = (
    "VM.Allocate",
    "VM.Audit",
    "VM.Config.Disk",
    "VM.Config.Network",
    "VM.Config.Options",
)
"""What it takes on the throw-away container by which the new root is unpacked."""
ON_ROOTS = ("Datastore.AllocateSpace", "Datastore.Audit")
"""What it takes on the storage of the roots."""
_NAMED = 4  # privileges that the name of a role spells out


@dataclass(frozen=True, slots=True)
class Duty:
    """Something that syncd does, and the privileges on a path that it needs.

    With `either`, one of the privileges is enough.
    """

    name: str
    path: str
    privileges: tuple[str, ...]
    either: bool = False

    def missing(self, held: Mapping[str, object]) -> tuple[str, ...]:
        """Return the privileges to grant, where the token holds `held` on the path."""
        lacking = tuple(privilege for privilege in self.privileges if privilege not in held)
        if self.either:
            return self.privileges[:1] if len(lacking) == len(self.privileges) else ()
        return lacking


def storage_duties(storage: str) -> tuple[Duty, ...]:
    """Return the duties of publishing: list, upload and delete templates of a storage."""
    path = f"/storage/{storage}"
    return (
        Duty("list", path, LISTING, either=True),
        Duty("upload", path, ("Datastore.AllocateTemplate",)),
        Duty("delete", path, ("Datastore.Allocate",)),
    )


def container_duties(
    storages: Iterable[str], bridges: Iterable[str], pool: str | None, *, unprivileged: bool = True
) -> tuple[Duty, ...]:
    """Return the duties of creating containers, by the paths on which they need privileges.

    `storages` are those of the root file system and of the mount points.
    """
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
    duties = [
        Duty("create", f"/pool/{pool}" if pool else "/vms", privileges),
        *(
            Duty("create", f"/storage/{storage}", ("Datastore.AllocateSpace",))
            for storage in dict.fromkeys(storages)
            if storage
        ),
        *(
            Duty("create", f"/sdn/zones/localnetwork/{bridge}", ("SDN.Use",))
            for bridge in dict.fromkeys(bridges)
        ),
    ]
    if not unprivileged:
        duties.append(Duty("create", "/", ("Sys.Modify",)))
    return tuple(duties)


def replacement_duties(storage: str, pool: str | None) -> tuple[Duty, ...]:
    """Return the duties of replacing the roots of any containers, whose roots are in `storage`."""
    path = f"/pool/{pool}" if pool else "/vms"
    return (
        Duty("replace", path, tuple(sorted({*ON_REPLACED, *ON_SCRATCH}))),
        Duty("snapshot", path, TO_SNAPSHOT),
        Duty("replace", f"/storage/{storage}", ON_ROOTS),
    )


def granting(
    token_id: str | None, path: str, privileges: Iterable[str], held: Iterable[str]
) -> str:
    """Return the commands that grant these privileges on this path to the token.

    A role on a path replaces what is inherited there, so the printed role also has `held`, which is
    what the token holds on the path already.  The name of the role tells its privileges, so a role
    of this name that exists already is the same role.  Without a token nothing is to be granted,
    and the result is empty.
    """
    if token_id is None:
        return ""
    return f"grant it: {'; '.join(_grant(token_id, path, {*privileges, *held}))}"


def setup_commands(token_id: str, duties: Iterable[Duty]) -> tuple[str, ...]:
    """Return the commands that make a user and its token, which may do these duties only.

    The second command prints the secret of the token, once.
    """
    user, _, token = token_id.partition("!")
    wanted: dict[str, set[str]] = {}
    for duty in duties:
        wanted.setdefault(duty.path, set()).update(duty.missing({}))
    grants = [line for path, names in wanted.items() for line in _grant(token_id, path, names)]
    return (
        f"pveum user add {user} --comment 'syncd, templates only'",
        f"pveum user token add {user} {token}",
        *grants,
    )


def _grant(token_id: str, path: str, privileges: Iterable[str]) -> tuple[str, str]:
    """Return the command that makes the role of some privileges, and the one that gives it."""
    names = sorted(privileges)
    user = token_id.partition("!")[0]
    listed = ",".join(names)
    role = "Syncd-" + (
        "-".join(name.replace(".", "") for name in names)
        if len(names) <= _NAMED
        else hashlib.sha256(listed.encode()).hexdigest()[:12]
    )
    return (
        f"pveum role add {role} --privs {shlex.quote(listed)}",
        f"pveum acl modify {path} --roles {role} --users {user} --tokens {shlex.quote(token_id)}",
    )
