"""The steps by which a container gets a new root file system, each one or two calls of the API.

Which step is next, and what happens when a step fails, is decided elsewhere.  Each step looks at
what is there before it changes anything, and each change names the digest of the configuration
that it was decided on, so nobody else's change is overwritten.  `undo` may be called whatever step
was the last one, and again after it was broken off.

The old root is never destroyed here but by `remove_old`.  Measured on pve-container 6.1.10: a PUT
of `rootfs` takes any volume, existing or not, and answers 200; so this module gives `rootfs` only
a volume that it saw as `unusedN` of the same container.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from syncd.errors import PublishError
from syncd.progress import Advance
from syncd.targets.proxmox import mounted_roots, swap_plan, tasks
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.guest_config import GuestConfig, root_on, storage_of
from syncd.targets.proxmox.guests import Guests
from syncd.targets.proxmox.snapshots import Snapshots
from syncd.targets.proxmox.swap_rights import SwapRights
from syncd.targets.proxmox.twin import twin_of
from syncd.targets.root_swap import Guest, RootSwap, SwapOrder, SwapStep, Twin, volume_of

_SHUTDOWN = 60  # seconds for the container to stop by itself, before it is stopped by force
_PAUSE = 0.5


class RootSwapper:
    """Does the steps of swaps on one cluster.  Safe to use from several threads."""

    def __init__(self, client: Client, access: ClusterAccess) -> None:
        self._client = client
        self._guests = Guests(client)
        self._snapshots = Snapshots(client)
        self._rights = SwapRights(client, access)
        self._access = access
        self._acts: Mapping[SwapStep, Callable[[RootSwap, Advance], RootSwap]] = {
            SwapStep.STOP: self._stop,
            SwapStep.SNAPSHOT: self._snapshot,
            SwapStep.UNPROTECT: self._unprotect,
            SwapStep.ALLOCATE: self._allocate,
            SwapStep.DETACH: self._detach,
            SwapStep.RESERVE: self._reserve,
            SwapStep.UNPACK: self._unpack,
            SwapStep.INSPECT: self._inspect,
            SwapStep.CARRY: self._carry,
            SwapStep.REMOVE: self._remove,
            SwapStep.SWAP: self._swap,
            SwapStep.START: self._start,
            SwapStep.PROTECT: self._protect,
        }

    def guest(self, vmid: int) -> Guest | None:
        """Return a container of the cluster, or None where the token sees none of this VMID."""
        return self._guests.find(vmid)

    def exists(self, vmid: int) -> bool:
        """Tell whether the cluster has this VMID, whether or not the token sees the container."""
        return self._guests.exists(vmid)

    def addresses(self, swap: RootSwap) -> tuple[str, ...]:
        """Return the addresses of the container of a swap; none while it is down."""
        return self._guests.addresses(swap.node, swap.vmid) if self.running(swap) else ()

    def running(self, swap: RootSwap) -> bool:
        """Return whether the container of a swap runs."""
        return self._guests.runs(swap.node, swap.vmid)

    def twin(self, guest: Guest) -> Twin:
        """Return what a container beside this one is made from; see `twin.twin_of`."""
        return twin_of(self._guests.config(guest.node, guest.vmid), guest.node)

    def plan(self, guest: Guest, order: SwapOrder) -> RootSwap:
        """Plan a swap; raise RequestError for why not, PublishError for lack of privileges."""
        now = self._guests.config(guest.node, guest.vmid)
        later = self._guests.config(guest.node, guest.vmid, later=True)
        plan = swap_plan.planned(
            guest, now=now, later=later, order=order, by_pvesh=self._client.is_local
        )
        self._rights.require(guest.vmid, storage_of(plan.old_root), snapshot=order.snapshot)
        if order.snapshot:
            self._snapshots.require(guest.node, guest.vmid)
        return replace(plan, carry=mounted_roots.carried_over(guest.node, order.carry))

    def do(self, step: SwapStep, swap: RootSwap, advance: Advance) -> RootSwap:
        """Do one step; return the swap with what the step found out.  Raise PublishError."""
        return self._acts[step](swap, advance)

    def is_swapped(self, swap: RootSwap) -> bool:
        """Return whether the container has the new root."""
        root = volume_of(self._of(swap).root)
        return bool(swap.new_root) and root == swap.new_volume

    def undo(self, swap: RootSwap, advance: Advance, *, keep_snapshot: bool = False) -> None:
        """Ensure that the container is as it was, and that nothing of the swap is left.

        With `keep_snapshot` the snapshot that the swap began with is left, if it was taken.  Raise
        PublishError when that is not possible now; then `undo` may be called again.
        """
        if swap.snapshot:
            self._snapshots.settle(swap.node, swap.vmid, advance)
        self._release(swap)
        runs = self.running(swap)
        self._revert(swap)
        half = self._mounted(swap, self._of(swap))
        if runs and (half or self.is_swapped(swap)):
            self._halt(swap, advance)
        if swap.protected and self._of(swap).flag("protection"):
            self._unprotect(swap, advance)
        self._restore(swap)
        if swap.scratch is not None:
            tasks.settle(self._client, swap.node, swap.scratch, ["vzcreate"], advance)
        self._remove(swap, advance)
        if half:
            self._put(swap, self._of(swap), delete=swap.mount_key)
        self._discard(swap, half or swap.new_volume)
        if swap.protected:
            self._protect(swap, advance)
        if (runs or swap.was_running) and not self.running(swap):
            self._start(swap, advance)
        if swap.snapshot and not keep_snapshot:
            self._snapshots.drop(swap.node, swap.vmid, swap.snapshot, advance)

    def remove_old(self, swap: RootSwap) -> bool:
        """Destroy the old root; return False where it is not an unused volume any more.

        There is no way back after this.  The snapshot that the swap began with has the old root,
        so it goes with it.  Raise PublishError while a snapshot of somebody else has it.
        """
        config = self._of(swap)
        if config.in_use(swap.old_volume) or config.unused_key(swap.old_volume) is None:
            return False
        self._snapshots.release(swap.node, swap.vmid, swap.old_volume, swap.snapshot)
        config = self._of(swap)
        if config.flag("protection"):
            self._put(swap, config, protection=0)
        try:
            self._discard(swap, swap.old_volume)
        finally:
            if config.flag("protection"):
                self._put(swap, self._of(swap), protection=1)
        return True

    def _stop(self, swap: RootSwap, advance: Advance) -> RootSwap:
        self._halt(swap, advance)
        return swap

    def _halt(self, swap: RootSwap, advance: Advance) -> None:
        """Shut the container down, by force after a minute."""
        if not self.running(swap):
            return
        upid = self._client.post(
            self._path(swap, "status/shutdown"), forceStop=1, timeout=_SHUTDOWN
        )
        tasks.finish(self._client, upid, f"container {swap.vmid} does not stop", advance)
        until = time.monotonic() + _SHUTDOWN
        while self.running(swap):  # a HA manager stops it after the task's end
            if time.monotonic() > until:
                raise PublishError(f"container {swap.vmid} does not stop")
            advance(0)
            time.sleep(_PAUSE)

    def _snapshot(self, swap: RootSwap, advance: Advance) -> RootSwap:
        self._still(swap)
        comment = f"before syncd replaces the root by {swap.image}"
        self._snapshots.take(swap.node, swap.vmid, swap.snapshot, comment, advance)
        return swap

    def _unprotect(self, swap: RootSwap, _: Advance) -> RootSwap:
        # Protection blocks the end of protection in the same PUT as a change of disks.
        self._put(swap, self._of(swap), protection=0)
        return swap

    def _protect(self, swap: RootSwap, _: Advance) -> RootSwap:
        config = self._of(swap)
        if not config.flag("protection"):
            self._put(swap, config, protection=1)
        return swap

    def _allocate(self, swap: RootSwap, _: Advance) -> RootSwap:
        config = self._still(swap)
        storage = storage_of(swap.old_root)
        value = f"{storage}:{swap.size},mp={swap.mount_path}"
        self._put(swap, config, **{swap.mount_key: value})
        config = self._of(swap)
        disk = config.text(swap.mount_key) or ""
        sizes = [part for part in disk.split(",") if part.startswith("size=")]
        if not self._mounted(swap, config) or not sizes:
            raise PublishError(f"container {swap.vmid} got no volume for its new root: {disk!r}")
        new_root = root_on(volume_of(disk), sizes[0].removeprefix("size="), swap.old_root)
        return replace(swap, new_root=new_root)

    def _detach(self, swap: RootSwap, _: Advance) -> RootSwap:
        self._put(swap, self._still(swap), delete=swap.mount_key)
        if self._of(swap).unused_key(swap.new_volume) is None:
            raise PublishError(f"{swap.new_volume} is no unused volume of container {swap.vmid}")
        return swap

    def _reserve(self, swap: RootSwap, _: Advance) -> RootSwap:
        return replace(swap, scratch=self._client.get("cluster/nextid", int))

    def _unpack(self, swap: RootSwap, advance: Advance) -> RootSwap:
        # No network and no mount points: a template is unpacked into mount points, too.
        params: dict[str, object] = {
            "vmid": swap.scratch,
            "ostemplate": swap.template,
            "rootfs": swap.new_volume,
            "unprivileged": int(swap.unprivileged),
            "hostname": swap.hostname,
            "description": f"syncd replaces the root of {swap.vmid}: {swap.mark}",
            **swap.startup,
        }
        if self._client.is_local and "\0" in swap.startup.get("env", ""):
            del params["env"]  # no argument of pvesh, and unchanged then: see `swap_plan.planned`
        if self._access.pool:
            params["pool"] = self._access.pool
        upid = self._client.post(f"nodes/{swap.node}/lxc", **params)
        exitstatus = tasks.finish(self._client, upid, "the new root cannot be unpacked", advance)
        if exitstatus == tasks.OK:
            return swap
        warned = f"Proxmox VE warns: {tasks.warned(self._client, upid)}"
        return replace(swap, warnings=(*swap.warnings, warned))

    def _inspect(self, swap: RootSwap, _: Advance) -> RootSwap:
        scratch = self._guests.config(swap.node, swap.scratch or 0)
        if swap.mark not in (scratch.text("description") or ""):
            raise PublishError(f"container {swap.scratch} is another's, not the throw-away one")
        return swap_plan.with_options(swap, self._of(swap), scratch)

    def _carry(self, swap: RootSwap, advance: Advance) -> RootSwap:
        if lock := self._still(swap).text("lock"):
            raise PublishError(f"container {swap.vmid} is locked meanwhile ({lock})")
        if not mounted_roots.carry_over(swap, advance):
            return swap
        carried = f"carried over from the old root: {', '.join(swap.carry)}"
        return replace(swap, warnings=(*swap.warnings, carried))

    def _release(self, swap: RootSwap) -> None:
        """Unmount what the carrying of files left mounted, which nothing else unlocks."""
        if swap.carry:
            for vmid, config in ((swap.vmid, self._of(swap)), (swap.scratch, self._scratch(swap))):
                if vmid and config and config.text("lock") == mounted_roots.LOCK:
                    mounted_roots.release(vmid, swap.node)

    def _remove(self, swap: RootSwap, advance: Advance) -> RootSwap:
        """Ensure that the throw-away container is gone; without the swap's mark it is another's."""
        if (config := self._scratch(swap)) is None:
            return swap
        what = f"the throw-away container {swap.scratch} cannot be removed"
        if lock := config.text("lock"):
            raise PublishError(f"{what}: it is locked ({lock})", f"pct unlock {swap.scratch}")
        upid = self._client.delete(f"nodes/{swap.node}/lxc/{swap.scratch}")
        if upid:
            tasks.finish(self._client, upid, what, advance)
        return swap

    def _swap(self, swap: RootSwap, _: Advance) -> RootSwap:
        config = self._still(swap)
        if config.unused_key(swap.new_volume) is None or swap.unused_key in config.values:
            raise PublishError(f"somebody changed the volumes of container {swap.vmid} meanwhile")
        changes = swap_plan.changes(swap.after)
        self._put(
            swap, config, rootfs=swap.new_root, **{swap.unused_key: swap.old_volume}, **changes
        )
        now, later = self._of(swap), self._guests.config(swap.node, swap.vmid, later=True)
        if volume_of(now.root) != swap.new_volume or now.unused_key(swap.old_volume) is None:
            raise PublishError(f"container {swap.vmid} did not take its new root")
        if now.options != later.options:
            raise PublishError(f"container {swap.vmid} has pending changes, so it was started")
        return swap

    def _start(self, swap: RootSwap, advance: Advance) -> RootSwap:
        if not self.running(swap):
            upid = self._client.post(self._path(swap, "status/start"))
            tasks.finish(self._client, upid, f"container {swap.vmid} does not start", advance)
        return swap

    def _revert(self, swap: RootSwap) -> None:
        """Take back a swap that waits for the next start, since somebody had started N before it.

        Such a swap waits as a whole, so it is reverted as a whole.
        """
        later = self._guests.config(swap.node, swap.vmid, later=True)
        pending = swap.new_root and volume_of(later.root) == swap.new_volume
        if pending and not self.is_swapped(swap):
            keys = ["rootfs", swap.unused_key, *swap.after]
            self._client.put(self._path(swap, "config"), revert=",".join(keys))

    def _restore(self, swap: RootSwap) -> None:
        """Give the container its old root and its old options in one change, if it has others."""
        config = self._of(swap)
        options = {key: old for key, old in swap.before.items() if config.text(key) != old}
        changes = swap_plan.changes(options)
        if self.is_swapped(swap):
            changes |= {"rootfs": swap.old_root, swap.unused_key: swap.new_volume}
        if changes:
            self._put(swap, config, **changes)

    def _discard(self, swap: RootSwap, volume: str) -> None:
        """Destroy an unused volume of the container, unless it is in use."""
        config = self._of(swap)
        key = config.unused_key(volume) if volume else None
        if key is not None and not config.in_use(volume):
            self._put(swap, config, delete=key)

    def _mounted(self, swap: RootSwap, config: GuestConfig) -> str:
        """Return the new volume while it is the swap's own mount point; else nothing."""
        value = config.text(swap.mount_key) or ""
        return volume_of(value) if f"mp={swap.mount_path}" in value.split(",") else ""

    def _scratch(self, swap: RootSwap) -> GuestConfig | None:
        """Return the configuration of the throw-away container; None where there is none."""
        if swap.scratch is None:
            return None
        if swap.scratch not in self._guests.nodes():
            return None
        config = self._guests.config(swap.node, swap.scratch)
        return config if swap.mark in (config.text("description") or "") else None

    def _still(self, swap: RootSwap) -> GuestConfig:
        """Return the configuration while the container is down and has its old root."""
        if self.running(swap):
            # On a running container a mount point is plugged in, and a root waits for the start.
            raise PublishError(f"somebody started container {swap.vmid} meanwhile")
        config = self._of(swap)
        if config.root != swap.old_root:
            raise PublishError(f"somebody changed the root of container {swap.vmid} meanwhile")
        return config

    def _put(self, swap: RootSwap, seen: GuestConfig, **changes: object) -> None:
        """Change the configuration that was seen, and no other."""
        self._client.put(self._path(swap, "config"), digest=seen.digest, **changes)

    def _of(self, swap: RootSwap) -> GuestConfig:
        return self._guests.config(swap.node, swap.vmid)

    @staticmethod
    def _path(swap: RootSwap, what: str) -> str:
        return f"nodes/{swap.node}/lxc/{swap.vmid}/{what}"
