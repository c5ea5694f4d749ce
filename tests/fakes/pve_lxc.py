"""The calls about containers: created, started, stopped and destroyed by tasks.

No container is ever made: a creation looks at the privileges, the VMID, the storages and the
template, runs a task, and leaves a configuration behind.
"""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import ApiError, Container, Task, TaskError

SINCE_9 = ("entrypoint", "env", "ha-managed")
ROOT_ONLY_FEATURES = ("keyctl", "fuse", "mknod", "mount", "force_rw_sys")
OPTION_PRIVILEGES = (
    (r"cores|cpulimit|cpuunits", "VM.Config.CPU"),
    (r"memory|swap", "VM.Config.Memory"),
    (r"rootfs|mp\d+", "VM.Config.Disk"),
    (r"net\d+|hostname|nameserver|searchdomain", "VM.Config.Network"),
    (r"description|onboot|startup|tags|timezone|tty|console|cmode|entrypoint|env|protection",
     "VM.Config.Options"),
    (r"start", "VM.PowerMgmt"),
)  # fmt: skip
NOT_CONFIGURATION = ("node", "vmid", "ostemplate", "pool", "start", "storage", "ssh-public-keys",
                     "password", "force", "ignore-unpack-errors")  # fmt: skip


def _container(call: Call) -> Container:
    vmid = int(call.params["vmid"])
    container = call.cluster.containers.get(vmid)
    if container is None or container.node != call.node:
        path = f"nodes/{call.node}/lxc/{vmid}.conf"
        raise ApiError(500, f"Configuration file '{path}' does not exist")
    return container


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
    call.need_on_vm(vmid, "VM.Allocate", pool)
    if params.get("unprivileged") != "1":
        call.token.need("/", "Sys.Modify")
    for option in params:
        for pattern, privilege in OPTION_PRIVILEGES:
            if re.fullmatch(pattern, option):
                call.need_on_vm(vmid, privilege, pool)
    for option, value in params.items():
        bridge = re.search(r"(?:^|,)bridge=([^,]+)", value) if option.startswith("net") else None
        if bridge:
            call.token.need(f"/sdn/zones/localnetwork/{bridge[1]}", "SDN.Use")
    for feature in params.get("features", "").split(","):
        name, _, value = feature.partition("=")
        if name in ROOT_ONLY_FEATURES and value != "0":
            raise ApiError(
                403, "changing feature flags (except nesting) is only allowed for root@pam"
            )
    template_storage = params["ostemplate"].partition(":")[0]
    call.token.need(
        f"/storage/{template_storage}", "Datastore.AllocateSpace", "Datastore.Audit", any_of=True
    )


def _check_storages(call: Call) -> tuple[str, str]:
    """Return the root file system's storage and size, after a look at it and the template."""
    volid = call.params["ostemplate"]
    storage_name, _, rest = volid.partition(":")
    storage = call.cluster.enabled_storage(storage_name, call.node)
    if not rest.startswith("vztmpl/"):
        raise ApiError(500, f"unable to parse directory volume name '{rest}'")
    rootfs = call.params.get("rootfs", call.params.get("storage", "local") + ":4").split(",")[0]
    root_storage, _, size = rootfs.removeprefix("volume=").partition(":")
    call.token.need(f"/storage/{root_storage}", "Datastore.AllocateSpace")
    root = call.cluster.enabled_storage(root_storage, call.node)
    if "rootdir" not in root.content:
        raise ApiError(500, f"storage '{root_storage}' does not support container directories")
    folder = call.cluster.template_folder(storage, call.node)
    if not (folder / rest.removeprefix("vztmpl/")).is_file():
        raise ApiError(500, f"volume '{volid}' does not exist")
    return root_storage, size


def create(call: Call) -> str:
    """POST /nodes/{node}/lxc: a UPID, unless the call itself is refused.

    A VMID that another client took in between is a 500 of its own wording.
    """
    cluster, params = call.cluster, call.params
    vmid = _check_schema(call)
    _check_privileges(call, vmid)
    root_storage, size = _check_storages(call)
    config: dict[str, str | int] = {
        name: value for name, value in params.items() if name not in NOT_CONFIGURATION
    }
    config |= {
        "arch": "amd64",
        "digest": "0" * 40,
        "hostname": params.get("hostname", f"CT{vmid}"),
        "rootfs": f"{root_storage}:subvol-{vmid}-disk-0,size={size}G",
        "lock": "create",
    }
    for name in ("cores", "memory", "swap", "unprivileged", "onboot", "tty"):
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

    def work(task: Task) -> None:
        task.log.append(f"extracting archive '{params['ostemplate']}'")
        cluster.tasks_may_finish.wait()
        if cluster.create_failure is not None:
            if not cluster.create_leaves:
                del cluster.containers[vmid]
            raise TaskError(f"unable to create CT {vmid} - {cluster.create_failure}")
        task.log.append(f"Detected container architecture: {config['arch']}")
        config["ostype"] = params.get("ostype", cluster.ostype)
        for warning in cluster.create_warnings:
            task.warn(warning)
        del config["lock"]
        if params.get("start") == "1":
            _start(call, container)

    return cluster.start_task(call.node, "vzcreate", str(vmid), call.token, work)


def _start(call: Call, container: Container) -> str:
    def work(task: Task) -> None:
        call.cluster.tasks_may_finish.wait()
        if call.cluster.start_failure is not None:
            raise TaskError(call.cluster.start_failure)
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


def config(call: Call) -> dict[str, str | int]:
    """GET /nodes/{node}/lxc/{vmid}/config."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    return dict(_container(call).config)


def current(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/lxc/{vmid}/status/current."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Audit")
    return _state(_container(call))


def start(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/status/start."""
    call.need_on_vm(int(call.params["vmid"]), "VM.PowerMgmt")
    container = _container(call)
    if container.running:
        raise ApiError(500, f"CT {container.vmid} already running")
    return _start(call, container)


def stop(call: Call) -> str:
    """POST /nodes/{node}/lxc/{vmid}/status/stop."""
    call.need_on_vm(int(call.params["vmid"]), "VM.PowerMgmt")
    container = _container(call)
    if not container.running:
        raise ApiError(500, f"CT {container.vmid} not running")

    def work(task: Task) -> None:
        container.running = False

    return call.cluster.start_task(call.node, "vzstop", str(container.vmid), call.token, work)


def destroy(call: Call) -> str:
    """DELETE /nodes/{node}/lxc/{vmid}: refused while it runs, unless `force` is 1."""
    call.need_on_vm(int(call.params["vmid"]), "VM.Allocate")
    container = _container(call)
    if container.running and call.params.get("force") != "1":
        raise ApiError(500, f"unable to destroy CT {container.vmid} - container is running")

    def work(task: Task) -> None:
        call.cluster.tasks_may_finish.wait()
        del call.cluster.containers[container.vmid]

    return call.cluster.start_task(call.node, "vzdestroy", str(container.vmid), call.token, work)
