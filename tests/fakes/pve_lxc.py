"""The calls about containers: created, started, stopped and destroyed by tasks.

No container is ever made: a creation looks at the privileges, the VMID, the storages and the
template, runs a task, and leaves a configuration behind.
"""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import ApiError, Cluster, Container, Task, TaskError
from tests.fakes.pve_lxc_config import (
    WHOLE_NUMBERS,
    allocated,
    boot,
    named,
    need_for,
    purge,
    volume_of,
)

SINCE_9 = ("entrypoint", "env", "ha-managed")
ROOT_ONLY_FEATURES = ("keyctl", "fuse", "mknod", "mount", "force_rw_sys")
NOT_CONFIGURATION = ("node", "vmid", "ostemplate", "pool", "start", "storage", "ssh-public-keys",
                     "password", "force", "ignore-unpack-errors")  # fmt: skip


def _check_schema(call: Call) -> int:
    for name in ("vmid", "ostemplate"):
        if name not in call.params:
            raise ApiError.parameter(**{name: "property is missing and it is not optional"})
    if not re.fullmatch(r"[1-9][0-9]{2,8}", call.params["vmid"]):
        raise ApiError.parameter(vmid="invalid format - value does not look like a valid VM ID")
    if int(call.cluster.version.split(".")[0]) < 9:
        for name in SINCE_9:
            if name in call.params:
                text = "property is not defined in schema and the schema does not allow additional"
                raise ApiError.parameter(**{name: f"{text} properties"})
    return int(call.params["vmid"])


def _check_privileges(call: Call, vmid: int) -> None:
    params, pool = call.params, call.params.get("pool")
    paths = [f"/vms/{vmid}", *([f"/pool/{pool}"] if pool else [])]
    if not any(call.token.may(path, "VM.Allocate") for path in paths):
        # Measured on pve-container 6.1.10 (facts.md): neither path nor privilege is named.
        raise ApiError(403, "Permission check failed")
    if params.get("unprivileged") != "1":
        call.token.need("/", "Sys.Modify")
    need_for(call, vmid, [*params], pool)
    for option, value in params.items():
        if re.fullmatch(r"mp\d+", option):
            _check_mount(call, value)
        bridge = re.search(r"(?:^|,)bridge=([^,]+)", value) if option.startswith("net") else None
        if bridge:
            call.token.need(f"/sdn/zones/localnetwork/{bridge[1]}", "SDN.Use")
    for feature in params.get("features", "").split(","):
        name, _, value = feature.partition("=")
        if name in ROOT_ONLY_FEATURES and value != "0":
            raise ApiError(
                403, "changing feature flags (except nesting) is only allowed for root@pam"
            )
    if "hookscript" in params:
        raise ApiError(403, "only root can set 'hookscript' config")
    template_storage = params["ostemplate"].partition(":")[0]
    call.token.need(
        f"/storage/{template_storage}", "Datastore.AllocateSpace", "Datastore.Audit", any_of=True
    )


def _check_mount(call: Call, line: str) -> None:
    """Look at a mount point of a creation: a new volume, or a path, which root@pam alone binds."""
    volume = line.split(",", maxsplit=1)[0]
    if volume.startswith("/"):
        raise ApiError(403, "mount point type bind is only possible for root@pam")
    storage = volume.partition(":")[0]
    call.token.need(f"/storage/{storage}", "Datastore.AllocateSpace")
    call.cluster.enabled_storage(storage, call.node)


def _check_storages(call: Call) -> str:
    """Return what is wanted as root file system, after a look at its storage and the template.

    A volume that exists takes VM.Config.Disk on the container that owns it.
    """
    volid = call.params["ostemplate"]
    storage_name, _, rest = volid.partition(":")
    storage = call.cluster.enabled_storage(storage_name, call.node)
    if not rest.startswith("vztmpl/"):
        raise ApiError(500, f"unable to parse directory volume name '{rest}'")
    rootfs = call.params.get("rootfs", call.params.get("storage", "local") + ":4")
    root_storage = volume_of(rootfs).partition(":")[0]
    call.token.need(f"/storage/{root_storage}", "Datastore.AllocateSpace")
    root = call.cluster.enabled_storage(root_storage, call.node)
    if "rootdir" not in root.content:
        raise ApiError(500, f"storage '{root_storage}' does not support container directories")
    folder = call.cluster.template_folder(storage, call.node)
    if not (folder / rest.removeprefix("vztmpl/")).is_file():
        raise ApiError(500, f"volume '{volid}' does not exist")
    existing = call.cluster.volumes.get(volume_of(rootfs))
    if existing is not None:
        call.need_on_vm(existing.owner, "VM.Config.Disk")
    return rootfs


def create(call: Call) -> str:
    """POST /nodes/{node}/lxc: a UPID, unless the call itself is refused.

    A VMID that another client took in between is a 500 of its own wording.
    """
    cluster, params = call.cluster, call.params
    vmid = _check_schema(call)
    _check_privileges(call, vmid)
    rootfs = _check_storages(call)
    config: dict[str, Any] = {
        name: value for name, value in params.items() if name not in NOT_CONFIGURATION
    }
    config |= {
        "arch": "amd64",
        "hostname": params.get("hostname", f"CT{vmid}"),
        "lock": "create",
    }
    for name in WHOLE_NUMBERS:
        if name in config:
            config[name] = int(config[name])
    with cluster.lock:
        if vmid in cluster.containers:
            where = cluster.containers[vmid].node
            raise ApiError(
                500, f"unable to create CT {vmid} - CT {vmid} already exists on node '{where}'"
            )
        container = Container(vmid, call.node, config, pool=params.get("pool"))
        cluster.containers[vmid] = container
    unprivileged = params.get("unprivileged") == "1"
    disks = {name: value for name, value in params.items() if re.fullmatch(r"mp\d+", name)}
    is_new = volume_of(rootfs) not in cluster.volumes
    for name, value in {"rootfs": rootfs, **disks}.items():
        config[name] = allocated(cluster, vmid, value, unprivileged=unprivileged)

    def vanish() -> None:
        """Take back what this creation made; a volume that was there before stays, half filled."""
        del cluster.containers[vmid]
        if is_new:
            purge(cluster, container, [])

    def work(task: Task) -> None:
        task.log.append(f"extracting archive '{params['ostemplate']}'")
        cluster.tasks_may_finish.wait()
        if params["ostemplate"].endswith(".tar") and params.get("unprivileged") != "1":
            # Measured on pve-container 6.1.10 (facts.md): the call itself is not refused.
            vanish()
            raise TaskError(f"unable to create CT {vmid} - setgid(0): Invalid argument")
        if cluster.create_failure is not None:
            _unpack(cluster, container, "half of " + params["ostemplate"])
            if not cluster.create_leaves:
                vanish()
            raise TaskError(f"unable to create CT {vmid} - {cluster.create_failure}")
        _unpack(cluster, container, params["ostemplate"])
        task.log.append(f"Detected container architecture: {config['arch']}")
        config["ostype"] = params.get("ostype", cluster.ostype)
        if params["ostemplate"].endswith(".tar"):
            # What PVE takes from an OCI archive, measured on pve-container 6.1.10 (facts.md).
            config.update(cluster.image_config)
        for warning in cluster.create_warnings:
            task.warn(warning)
        task.log += [
            f"Creating SSH host key {number} - this may take some time" for number in range(9)
        ]
        del config["lock"]
        if params.get("start") == "1":
            _start(call, container)

    return cluster.start_task(call.node, "vzcreate", str(vmid), call.token, work)


def _unpack(cluster: Cluster, container: Container, template: str) -> None:
    """Unpack into every volume that the container has mounted, whoever owns the volume."""
    for name, value in container.config.items():
        if re.fullmatch(r"rootfs|mp\d+", name) and volume_of(value) in cluster.volumes:
            cluster.volumes[volume_of(value)].content = template


def _start(call: Call, container: Container) -> str:
    def work(task: Task) -> None:
        call.cluster.tasks_may_finish.wait()
        if call.cluster.start_failure is not None:
            raise TaskError(call.cluster.start_failure)
        boot(call.cluster, container)
        container.running = True

    return call.cluster.start_task(call.node, "vzstart", str(container.vmid), call.token, work)


def listing(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/lxc: the containers that the token may see."""
    return [
        _state(container)
        for container in call.cluster.containers.values()
        if container.node == call.node and call.token.may(f"/vms/{container.vmid}", "VM.Audit")
    ]


def _state(container: Container) -> dict[str, Any]:
    state: dict[str, Any] = {
        "vmid": container.vmid,
        "name": container.config["hostname"],
        "status": "running" if container.running else "stopped",
        "type": "lxc",
    }
    shown = ("lock", "tags")
    return state | {name: container.config[name] for name in shown if name in container.config}


def current(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/lxc/{vmid}/status/current."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    return _state(named(call))


def start(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/status/start."""
    call.need_on_vm(int(call.params["vmid"]), "VM.PowerMgmt")
    container = named(call)
    if container.running:
        raise ApiError(500, f"CT {container.vmid} already running")
    if "lock" in container.config:
        raise ApiError(500, f"CT is locked ({container.config['lock']})")
    return _start(call, container)


def stop(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/status/stop."""
    call.need_on_vm(int(call.params["vmid"]), "VM.PowerMgmt")
    container = named(call)
    if not container.running:
        raise ApiError(500, f"CT {container.vmid} not running")

    def work(task: Task) -> None:
        container.running = False

    return call.cluster.start_task(call.node, "vzstop", str(container.vmid), call.token, work)


def shutdown(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/status/shutdown: with `forceStop`, it stops in any case."""
    call.need_on_vm(int(call.params["vmid"]), "VM.PowerMgmt")
    container = named(call)
    if not container.running:
        raise ApiError(500, f"CT {container.vmid} not running")

    def work(task: Task) -> None:
        if call.cluster.deaf and call.params.get("forceStop") != "1":
            raise TaskError("container did not stop")
        container.running = False

    return call.cluster.start_task(call.node, "vzshutdown", str(container.vmid), call.token, work)


def interfaces(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/lxc/{vmid}/interfaces: an address where the container runs and has one."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    container = named(call)
    loopback = {"name": "lo", "hwaddr": "00:00:00:00:00:00", "inet": "127.0.0.1/8"}
    found = {"name": "eth0", "hwaddr": "bc:24:11:00:00:01"}
    volume = call.cluster.volumes.get(volume_of(container.config["rootfs"]))
    if volume is not None and volume.content not in call.cluster.mute_images:
        found["inet"] = "127.0.0.1/24"
    shown = [loopback, found] if container.running else []
    return [{**each, "hardware-address": each["hwaddr"]} for each in shown]


def destroy(call: Call) -> str:
    """DELETE /nodes/{node}/lxc/{vmid}: refused while it runs, unless `force` is 1."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Allocate")
    container = named(call)
    if container.config.get("protection") == 1:
        raise ApiError(500, f"can't remove CT {container.vmid} - protection mode enabled")
    if container.running and call.params.get("force") != "1":
        raise ApiError(500, f"unable to destroy CT {container.vmid} - container is running")

    def work(task: Task) -> None:
        call.cluster.tasks_may_finish.wait()
        purge(call.cluster, container, task.log)
        del call.cluster.containers[container.vmid]

    return call.cluster.start_task(call.node, "vzdestroy", str(container.vmid), call.token, work)
