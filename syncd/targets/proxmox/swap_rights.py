"""Whether the token may give a container a new root, asked before anything is changed.

A privilege that is found missing half-way costs the container its time down for nothing.
"""

from __future__ import annotations

from syncd.errors import PublishError
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.guests import Guests
from syncd.targets.proxmox.privileges import (
    ON_REPLACED,
    ON_ROOTS,
    ON_SCRATCH,
    TO_SNAPSHOT,
    Duty,
)


class SwapRights:
    """Asks for the privileges of one token."""

    def __init__(self, client: Client, access: ClusterAccess) -> None:
        self._client = client
        self._access = access

    def require(self, vmid: int, storage: str, *, snapshot: bool) -> None:
        """Raise PublishError unless the token has what a swap of the container's root takes.

        With `snapshot`, the swap begins with one.  Of a container and of its pool one is enough.
        Root, who asks through `pvesh`, may do all.
        """
        if self._client.is_local:
            return
        own = self._access.pool
        on_scratch = Duty("replace", f"/pool/{own}" if own else "/vms", ON_SCRATCH)
        on_storage = Duty("replace", f"/storage/{storage}", ON_ROOTS)
        needed = (*ON_REPLACED, *TO_SNAPSHOT) if snapshot else ON_REPLACED
        lacking = self._client.lacking([Duty("replace", f"/vms/{vmid}", needed)])
        if lacking and (pool := Guests(self._client).pool(vmid)):
            lacking = self._client.lacking([Duty("replace", f"/pool/{pool}", needed)])
        lacking += self._client.lacking([on_scratch, on_storage])
        if lacking:
            raise PublishError(
                f"the token may not replace the root of container {vmid}: "
                + "; ".join(
                    f"{', '.join(missing)} on {duty.path} is missing" for duty, missing in lacking
                ),
                "; ".join(self._client.granting(duty.path, missing) for duty, missing in lacking),
            )
