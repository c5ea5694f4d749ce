"""The configuration of a container: read, changed, and its volumes with their owners.

What the real API answers with 200 although it does harm is done here, too (measured on
pve-container 6.1.10, facts.md): a PUT of `rootfs` allocates nothing and asks of a volume neither
whether it exists nor whose it is; a taken `unusedN` is written over; the former root becomes
unused only where the PUT says so; a lock that is set stays.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import ApiError, Cluster, Container, RootVolume, TaskError

OPTION_PRIVILEGES = (
    (r"cores|cpulimit|cpuunits", "VM.Config.CPU"),
    (r"memory|swap", "VM.Config.Memory"),
    (r"rootfs|mp\d+|unused\d+", "VM.Config.Disk"),
    (r"net\d+|hostname|nameserver|searchdomain", "VM.Config.Network"),
    (r"description|onboot|startup|tags|timezone|tty|console|cmode|entrypoint|env|protection|lock",
     "VM.Config.Options"),
    (r"start", "VM.PowerMgmt"),
)  # fmt: skip
WHOLE_NUMBERS = ("cores", "memory", "swap", "unprivileged", "onboot", "tty", "protection")
NOT_OPTIONS = ("node", "vmid", "digest", "delete", "revert")
VOLUMES = re.compile(r"rootfs|mp\d+|unused\d+")
DISKS = re.compile(r"rootfs|mp\d+")
UNUSED = range(256)


def need_for(call: Call, vmid: int, options: list[str], pool: str | None = None) -> None:
    """Raise the 403 unless each option's privilege holds on the container."""
    for option in options:
        for pattern, privilege in OPTION_PRIVILEGES:
            if re.fullmatch(pattern, option):
                call.need_on_vm(vmid, privilege, pool)


def named(call: Call) -> Container:
    """Return the container that the path names."""
    vmid = int(call.params["vmid"])
    container = call.cluster.containers.get(vmid)
    if container is None or container.node != call.node:
        path = f"nodes/{call.node}/lxc/{vmid}.conf"
        raise ApiError(500, f"Configuration file '{path}' does not exist")
    return container


def volume_of(value: object) -> str:
    """Return the volume id of a root, a mount point, or an unused volume."""
    return str(value).split(",")[0].removeprefix("volume=")


def allocated(cluster: Cluster, vmid: int, value: str, *, unprivileged: bool) -> str:
    """Return a disk's value with its volume and size: `STORAGE:GIB` makes a new volume.

    Another volume is taken as it is.
    """
    wanted, *options = value.removeprefix("volume=").split(",")
    storage, _, size = wanted.partition(":")
    if not re.fullmatch(r"\d+(\.\d+)?", size):
        return value
    with cluster.lock:
        number = next(
            n for n in range(1000) if f"{storage}:subvol-{vmid}-disk-{n}" not in cluster.volumes
        )
        volid = f"{storage}:subvol-{vmid}-disk-{number}"
        cluster.volumes[volid] = RootVolume(vmid, unprivileged)
    return ",".join([volid, *options, f"size={size}G"])


def digest_of(container: Container) -> str:
    """Return the digest of a configuration, of what is pending, and of the snapshots."""
    state = [container.config, container.pending, container.snapshots]
    text = json.dumps(state, sort_keys=True)
    return hashlib.sha1(text.encode()).hexdigest()


def read(call: Call) -> dict[str, object]:
    """GET /nodes/{node}/lxc/{vmid}/config: with what is pending, unless `current` is 1.

    With `snapshot` it is the configuration as it was then (`load_snapshot_config` of
    PVE::AbstractConfig).  Measured on pve-container 6.1.10 (facts.md): with `env` it takes
    VM.Config.Options as well.
    """
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    container = named(call)
    if "snapshot" in call.params:
        if call.params.get("current") == "1":
            text = "cannot use 'snapshot' parameter with 'current'"
            raise ApiError.parameter(snapshot=text, current=text)
        name = call.params["snapshot"]
        if name not in container.snapshots:
            raise ApiError(500, f"snapshot '{name}' does not exist")
        return {**container.snapshots[name], "digest": digest_of(container)}
    shown = container.config if call.params.get("current") == "1" else pending_applied(container)
    if "env" in shown:
        call.need_on_vm(container.vmid, "VM.Config.Options")
    return {**shown, "digest": digest_of(container)}


def pending_applied(container: Container) -> dict[str, object]:
    """Return the configuration as it is after the next start."""
    shown = container.config | container.pending
    return {key: value for key, value in shown.items() if value is not None}


def change(call: Call) -> None:
    """PUT /nodes/{node}/lxc/{vmid}/config: each option needs its own privilege.

    On a running container a new mount point is plugged in at once, and root, variables and what is
    deleted wait for the next start.
    """
    vmid, params = int(call.params["vmid"]), call.params
    given = {name: value for name, value in params.items() if name not in NOT_OPTIONS}
    deleted = [name for name in re.split(r"[,;\s]+", params.get("delete", "")) if name]
    reverted = [name for name in re.split(r"[,;\s]+", params.get("revert", "")) if name]
    need_for(call, vmid, [*given, *deleted, *reverted])
    container = named(call)
    cluster, current = call.cluster, container.config
    with cluster.lock:
        if params.get("digest") not in (None, digest_of(container)):
            raise ApiError(
                500, "detected modified configuration - file changed by other user? Try again."
            )
        if "lock" in current:
            raise ApiError(500, f"CT is locked ({current['lock']})")
        for verb, names in (("remove", deleted), ("update", [*given])):
            for name in names:
                if current.get("protection") == 1 and VOLUMES.fullmatch(name):
                    what = f"can't {verb} CT {vmid} drive '{name}'"
                    raise ApiError(500, f"{what} - protection mode enabled")
        for name in reverted:
            container.pending.pop(name, None)
        for name in deleted:
            if container.running and not name.startswith("unused"):
                container.pending[name] = None
            else:
                _delete(cluster, container, name)
        for name, value in given.items():
            typed: str | int = int(value) if name in WHOLE_NUMBERS else value
            if re.fullmatch(r"mp\d+", name):
                mapped = current.get("unprivileged") == 1
                typed = allocated(cluster, vmid, value, unprivileged=mapped)
            waits = name in ("rootfs", "env", "entrypoint", "cmode") or name.startswith("unused")
            if container.running and waits:
                container.pending[name] = typed
            else:
                current[name] = typed
                _forget_unused(container, name)


def _delete(cluster: Cluster, container: Container, name: str) -> None:
    """Take an option away: a mount point's volume becomes unused, an unused one is destroyed.

    Neither happens to a volume that a snapshot has; its option goes all the same
    (`vmconfig_apply_pending` of PVE::LXC::Config, which asks `is_volume_in_use` with snapshots).
    """
    current = container.config
    value = current.pop(name, None)
    if value is None or not VOLUMES.fullmatch(name):
        return
    volid = volume_of(value)
    in_use = [volume_of(other) for key, other in current.items() if VOLUMES.fullmatch(key)]
    in_use += [volid for kept in container.snapshots.values() for volid in mounted(kept)]
    volume = cluster.volumes.get(volid)
    if volid in in_use or volume is None or volume.owner != container.vmid:
        return
    if name.startswith("unused"):
        del cluster.volumes[volid]
    else:
        key = next(f"unused{n}" for n in UNUSED if f"unused{n}" not in current)
        current[key] = volid


def mounted(config: Mapping[str, object]) -> list[str]:
    """Return the volumes that a configuration has as root and mount points."""
    return [volume_of(value) for key, value in config.items() if DISKS.fullmatch(key)]


def _forget_unused(container: Container, name: str) -> None:
    """Strike the `unusedN` of a volume that is in use again."""
    if not DISKS.fullmatch(name):
        return
    volid = volume_of(container.config[name])
    for key in [key for key in container.config if key.startswith("unused")]:
        if container.config[key] == volid:
            del container.config[key]


def boot(cluster: Cluster, container: Container) -> None:
    """Apply what is pending, and mount the root; raise TaskError where that cannot be done."""
    for name, value in container.pending.items():
        if value is None:
            _delete(cluster, container, name)
        else:
            container.config[name] = value
            _forget_unused(container, name)
    container.pending.clear()
    volid = volume_of(container.config["rootfs"])
    volume = cluster.volumes.get(volid)
    if volume is None:
        raise TaskError(f"volume '{volid}' does not exist")
    if volume.unprivileged != (container.config.get("unprivileged") == 1):
        raise TaskError("lxc_init: 845 Failed to run lxc.hook.pre-start")
    if volume.content in cluster.bad_images:
        raise TaskError(f"startup for container '{container.vmid}' failed")


def purge(cluster: Cluster, container: Container, log: list[str]) -> None:
    """Destroy the volumes of a container that is destroyed: those that it owns."""
    for key, value in container.config.items():
        if not VOLUMES.fullmatch(key):
            continue
        volid = volume_of(value)
        volume = cluster.volumes.get(volid)
        if volume is not None and volume.owner == container.vmid:
            del cluster.volumes[volid]
        elif volume is not None:
            log.append(f"ignore deletion of '{volid}', CT {container.vmid} isn't the owner!")
