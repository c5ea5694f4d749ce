"""The calls about the cluster itself, its nodes and tasks, and what every call is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.fakes.pve_cluster import GIB, LISTED_BASE_PATHS, ApiError, Cluster, Task, Token


@dataclass(frozen=True)
class Call:
    """One authenticated call: `at` is the endpoint that took it, `params` include the path's."""

    cluster: Cluster
    token: Token
    at: str
    params: dict[str, str]

    @property
    def node(self) -> str:
        """The node that the path names."""
        return self.params["node"]

    def need_on_vm(self, vmid: int, privilege: str, pool: str | None = None) -> None:
        """Raise the 403 unless the privilege holds on the container or on its pool."""
        container = self.cluster.containers.get(vmid)
        pool = pool or (container.pool if container else None)
        if not (pool and self.token.may(f"/pool/{pool}", privilege)):
            self.token.need(f"/vms/{vmid}", privilege)


def version(call: Call) -> dict[str, str]:
    """GET /version."""
    release = ".".join(call.cluster.version.split(".")[:2])
    return {"version": call.cluster.version, "release": release, "repoid": "0123456789abcdef"}


def permissions(call: Call) -> dict[str, dict[str, int]]:
    """GET /access/permissions: what a token may do, by path, without the empty paths."""
    if call.params.get("userid", call.token.id) != call.token.id:
        call.token.need("/access", "Sys.Audit")
    token = call.cluster.tokens.get(call.params.get("userid", call.token.id))
    if token is None:
        raise ApiError.parameter(userid="no such user or token")
    if "path" in call.params:
        paths = {call.params["path"]}
    else:
        paths = {*LISTED_BASE_PATHS}.union(*(each.acl for each in call.cluster.tokens.values()))
    held = {path: token.privileges(path) for path in sorted(paths)}
    return {path: privileges for path, privileges in held.items() if privileges}


def nodes(call: Call) -> list[dict[str, Any]]:
    """GET /nodes: all of them; figures only for online ones, and with Sys.Audit."""
    listed = []
    for node in call.cluster.nodes.values():
        status = node.status if node.online else "offline"
        entry: dict[str, Any] = {
            "node": node.name,
            "status": status,
            "type": "node",
            "id": f"node/{node.name}",
        }
        if node.online and call.token.may(f"/nodes/{node.name}", "Sys.Audit"):
            entry |= {
                "mem": node.mem,
                "maxmem": node.maxmem,
                "cpu": 0.05,
                "maxcpu": 8,
                "uptime": 100_000,
            }
        listed.append(entry)
    return listed


def cluster_status(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/status: the cluster, and each node with the address of its name."""
    call.token.need("/", "Sys.Audit")
    nodes = call.cluster.nodes.values()
    cluster = {
        "type": "cluster",
        "id": "cluster",
        "name": "lab",
        "nodes": len(nodes),
        "quorate": 1,
        "version": len(nodes),
    }
    return [cluster] + [
        {
            "type": "node",
            "id": f"node/{node.name}",
            "name": node.name,
            "nodeid": number,
            "ip": f"127.0.0.{number}",
            "online": int(node.online),
            "local": int(node.name == call.at),
            "level": "",
        }
        for number, node in enumerate(nodes, start=1)
    ]


def node_status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/status: `rootfs` is where uploads are spooled."""
    call.token.need(f"/nodes/{call.node}", "Sys.Audit")
    node = call.cluster.nodes[call.node]
    free, total = node.spool_avail, 100 * GIB
    return {
        "pveversion": f"pve-manager/{call.cluster.version}/0123456789abcdef",
        "memory": {"total": node.maxmem, "used": node.mem, "free": node.maxmem - node.mem},
        "rootfs": {"total": total, "used": total - free, "avail": free, "free": free},
        "current-kernel": {"machine": node.machine, "sysname": "Linux"},
    }


def next_id(call: Call) -> int:
    """GET /cluster/nextid: the lowest free VMID, as a number; or whether the given one is free.

    Measured on pve-manager 9.2.11 (facts.md).
    """
    taken = call.cluster.containers
    if "vmid" in call.params:
        if int(call.params["vmid"]) in taken:
            raise ApiError.parameter(vmid=f"VM {call.params['vmid']} already exists")
        return int(call.params["vmid"])
    return next(vmid for vmid in range(100, 1_000_000) if vmid not in taken)


def resources(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/resources: nodes, storages and containers that the token may see."""
    cluster, token = call.cluster, call.token
    found: list[dict[str, Any]] = [
        {**node, "type": "node"}
        for node in nodes(call)
        if token.may(f"/nodes/{node['node']}", "Sys.Audit")
    ]
    for node in cluster.nodes.values():
        for storage in cluster.storages.values():
            sees = token.may(
                f"/storage/{storage.name}",
                "Datastore.Audit",
                "Datastore.AllocateSpace",
                any_of=True,
            )
            if sees and not storage.disable and (not storage.nodes or node.name in storage.nodes):
                entry: dict[str, Any] = {
                    "type": "storage",
                    "id": f"storage/{node.name}/{storage.name}",
                    "node": node.name,
                    "storage": storage.name,
                    "plugintype": storage.type,
                    "content": ",".join(storage.content),
                    "shared": int(storage.shared),
                    "status": "available" if node.online and storage.active else "unknown",
                }
                if node.online and storage.active:
                    avail = cluster.avail(storage, node.name)
                    entry |= {"maxdisk": storage.total, "disk": storage.total - avail}
                found.append(entry)
    found += [
        {
            "type": "lxc",
            "id": f"lxc/{container.vmid}",
            "vmid": container.vmid,
            "node": container.node,
            "name": container.config["hostname"],
            "status": "running" if container.running else "stopped",
            **({"pool": container.pool} if container.pool else {}),
        }
        for container in cluster.containers.values()
        if token.may(f"/vms/{container.vmid}", "VM.Audit")
        or (container.pool and token.may(f"/pool/{container.pool}", "VM.Audit"))
    ]
    wanted = {"vm": "lxc"}.get(call.params.get("type", ""), call.params.get("type"))
    return [entry for entry in found if wanted in (None, entry["type"])]


def _task(call: Call) -> Task:
    """Find the task of a UPID: only on its own node, and only for its owner or an auditor."""
    task = call.cluster.tasks.get(call.params["upid"])
    if task is None or task.node != call.node:
        raise ApiError.parameter(upid="no such task")
    if task.user != call.token.id:
        call.token.need(f"/nodes/{call.node}", "Sys.Audit")
    return task


def tasks(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/tasks: to a token nothing without Sys.Audit on `/`, not even its own tasks.

    Measured on pve-manager 9.2.11 (facts.md): the call compares the user alone with the token's
    whole name, and a privilege on `/nodes` is not enough.
    """
    if not call.token.may("/", "Sys.Audit"):
        return []
    return [
        _entry(task) | ({} if task.exitstatus is None else {"status": task.exitstatus})
        for task in list(call.cluster.tasks.values())
    ]


def node_tasks(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/tasks: the token's own tasks there, with Sys.Audit on the node all.

    Measured on pve-manager 9.2.11 (facts.md): with `source=all` the active tasks come first,
    without `endtime` and with status RUNNING.  Without `source` only ended tasks are listed.
    """
    source, params = call.params.get("source", "archive"), call.params
    auditor = call.token.may(f"/nodes/{call.node}", "Sys.Audit")
    fitting = [
        task
        for task in reversed(list(call.cluster.tasks.values()))
        if task.node == call.node
        and (auditor or task.user == call.token.id)
        and params.get("typefilter") in (None, task.type)
        and params.get("vmid") in (None, task.id)
    ]
    active = [_entry(task) | {"status": "RUNNING"} for task in fitting if task.exitstatus is None]
    ended = [_entry(task) | {"status": task.exitstatus} for task in fitting if task.exitstatus]
    listed = (active if source != "archive" else []) + (ended if source != "active" else [])
    return listed[: int(params.get("limit", "50"))]


def _entry(task: Task) -> dict[str, Any]:
    user, _, token = task.user.partition("!")
    entry: dict[str, Any] = {
        "upid": task.upid,
        "node": task.node,
        "pid": int(task.upid.split(":")[2], 16),
        "pstart": int(task.upid.split(":")[3], 16),
        "type": task.type,
        "id": task.id,
        "user": user,
        "tokenid": token,
        "starttime": task.starttime,
    }
    return entry | ({} if task.exitstatus is None else {"endtime": task.starttime + 1})


def task_status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/tasks/{upid}/status: `exitstatus` appears once it is stopped."""
    task = _task(call)
    entry: dict[str, Any] = {
        "upid": task.upid,
        "node": task.node,
        "type": task.type,
        "id": task.id,
        "user": task.user,
        "starttime": task.starttime,
        "pid": int(task.upid.split(":")[2], 16),
        "pstart": int(task.upid.split(":")[3], 16),
        "status": "running",
    }
    if task.exitstatus is not None:
        entry |= {"status": "stopped", "exitstatus": task.exitstatus}
    return entry


def task_log(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/tasks/{upid}/log: 50 lines from `start` unless `limit` says otherwise."""
    lines = list(_task(call).log) or ["no content"]
    start, limit = int(call.params.get("start", "0")), int(call.params.get("limit", "50"))
    numbered = [{"n": number, "t": line} for number, line in enumerate(lines, start=1)]
    return numbered[start : start + limit if limit else None]
