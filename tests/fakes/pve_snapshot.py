"""The calls about the snapshots of a container.

Read, not measured: the calls in https://github.com/proxmox/pve-container, src/PVE/API2/LXC.pm and
src/PVE/API2/LXC/Snapshot.pm; what they do in https://github.com/proxmox/pve-guest-common,
src/PVE/AbstractConfig.pm (`snapshot_create`, `snapshot_delete`, `snapshot_rollback`) and
`has_feature` of PVE::LXC::Config; which storages can in `volume_has_feature` of the plugins of
https://github.com/proxmox/pve-storage.
"""

from __future__ import annotations

import re
import time
from typing import Any

from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import ApiError, Cluster, Container, Task, TaskError
from tests.fakes.pve_lxc_config import UNUSED, mounted, named

TAKERS = frozenset({"btrfs", "lvmthin", "rbd", "zfspool"})
"""The types of storage that take snapshots of a container's volumes."""
NOT_KEPT = ("lock", "digest", "description", "parent")
"""What of a configuration no snapshot has, besides unused volumes."""


def feature(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/lxc/{vmid}/feature: whether all can; a folder of the host cannot."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    storages = [volid.partition(":")[0] for volid in mounted(named(call).config)]
    known = call.cluster.storages
    return {"hasFeature": int(all(s in known and known[s].type in TAKERS for s in storages))}


def listing(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/lxc/{vmid}/snapshot: all, and the present as `current`."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    container = named(call)
    shown = [
        {"name": name, "snaptime": kept["snaptime"], "description": kept.get("description", "")}
        for name, kept in container.snapshots.items()
    ]
    return [*shown, {"name": "current", "running": int(container.running)}]


def create(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/snapshot: the container is locked meanwhile."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Snapshot")
    container, name = named(call), call.params["snapname"]
    if name in ("current", "vzdump"):
        raise ApiError(500, f"unable to use snapshot name '{name}' (reserved name)")

    def work(task: Task) -> None:
        cluster, config = call.cluster, container.config
        with cluster.lock:
            if config.get("template") == 1:
                raise TaskError("you can't take a snapshot if it's a template")
            _lock(container, "snapshot")
        try:
            if name in container.snapshots:
                raise TaskError(f"snapshot name '{name}' already used")
            if not feature(call)["hasFeature"]:
                raise TaskError("snapshot feature is not available")
            cluster.tasks_may_finish.wait()
            if cluster.snapshot_failure is not None:
                task.log.append("snapshot create failed: starting cleanup")
                raise TaskError(cluster.snapshot_failure)
            kept = {key: value for key, value in config.items() if _is_kept(key)}
            if "description" in call.params:
                kept["description"] = call.params["description"]
            with cluster.lock:
                for volid in mounted(config):
                    cluster.volumes[volid].snapshots[name] = cluster.volumes[volid].content
                container.snapshots[name] = kept | {"snaptime": int(time.time())}
                config["parent"] = name
        finally:
            del config["lock"]

    return call.cluster.start_task(call.node, "vzsnapshot", str(container.vmid), call.token, work)


def delete(call: Call) -> str:
    """DELETE /nodes/{node}/lxc/{vmid}/snapshot/{snapname}: its volumes are unused, if nobody's."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Snapshot")
    container, name = named(call), call.params["snapname"]

    def work(task: Task) -> None:
        cluster, config = call.cluster, container.config
        with cluster.lock:
            if name not in container.snapshots:
                raise TaskError(f"snapshot '{name}' does not exist")
            _lock(container, "snapshot-delete")
        cluster.tasks_may_finish.wait()
        with cluster.lock:
            kept = container.snapshots.pop(name)
            for volid in mounted(kept):
                del cluster.volumes[volid].snapshots[name]
                _keep_unused(container, volid)
            if config.get("parent") == name:
                del config["parent"]
            del config["lock"]

    return call.cluster.start_task(
        call.node, "vzdelsnapshot", str(container.vmid), call.token, work
    )


def roll_back(cluster: Cluster, container: Container, name: str) -> None:
    """Do what `pct rollback` does: volumes and configuration are as they were.

    The description stays, and what was not there then becomes unused.
    """
    kept, now = container.snapshots[name], container.config
    for volid in mounted(kept):
        cluster.volumes[volid].content = cluster.volumes[volid].snapshots[name]
    left = [volid for volid in mounted(now) if volid not in mounted(kept)]
    stays = {
        key: value
        for key, value in now.items()
        if key == "description" or (key.startswith("unused") and value not in mounted(kept))
    }
    container.config = stays | {key: kept[key] for key in kept if _is_kept(key)} | {"parent": name}
    del container.config["snaptime"]
    container.running = False
    for volid in left:
        _keep_unused(container, volid)


def _is_kept(key: str) -> bool:
    return key not in NOT_KEPT and not re.fullmatch(r"unused\d+", key)


def _lock(container: Container, name: str) -> None:
    if "lock" in container.config:
        raise TaskError(f"CT is locked ({container.config['lock']})")
    container.config["lock"] = name


def _keep_unused(container: Container, volid: str) -> None:
    """Let a volume be an unused one, unless it is in use, or one already."""
    config = container.config
    used = [value for key, value in config.items() if key.startswith("unused")]
    if volid not in used and volid not in mounted(config):
        config[next(f"unused{n}" for n in UNUSED if f"unused{n}" not in config)] = volid
