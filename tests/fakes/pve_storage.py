"""The calls about storages and what lies in them.

Everything here hides silently what the token may not see, as the real API does.
"""

from __future__ import annotations

import re
import time
from typing import Any

from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import PATH_TYPES, ApiError, Storage, Task

TEMPLATE_NAME = re.compile(r"[^/]+\.tar(?:\.(gz|xz|zst|bz2))?", re.IGNORECASE)
SEES = ("Datastore.Audit", "Datastore.AllocateSpace")


def _sees(call: Call, storage: str) -> bool:
    return call.token.may(f"/storage/{storage}", *SEES, any_of=True)


def configuration(call: Call) -> list[dict[str, Any]]:
    """GET /storage: the entries of storage.cfg."""
    listed = []
    for storage in call.cluster.storages.values():
        if _sees(call, storage.name) and call.params.get("type") in (None, storage.type):
            entry: dict[str, Any] = {
                "storage": storage.name,
                "type": storage.type,
                "content": ",".join(sorted(storage.content)),
                "digest": "0" * 40,
            }
            if storage.type in PATH_TYPES:
                folder = call.cluster.template_folder(storage, call.at)
                entry["path"] = storage.path or str(folder.parent.parent)
            if storage.shared:
                entry["shared"] = 1
            if storage.disable:
                entry["disable"] = 1
            if storage.nodes:
                entry["nodes"] = ",".join(storage.nodes)
            listed.append(entry)
    return listed


def _figures(call: Call, storage: Storage) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": storage.type,
        "content": ",".join(sorted(storage.content)),
        "shared": int(storage.shared),
        "enabled": int(not storage.disable),
        "active": int(storage.active and not storage.disable),
        "total": 0,
        "used": 0,
        "avail": 0,
    }
    if entry["active"]:
        avail = call.cluster.avail(storage, call.node)
        entry |= {"total": storage.total, "used": storage.total - avail, "avail": avail}
    return entry


def of_node(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage: those the node has, with their space."""
    params = call.params
    return [
        {"storage": storage.name, **_figures(call, storage)}
        for storage in call.cluster.storages.values()
        if _sees(call, storage.name)
        and (not storage.nodes or call.node in storage.nodes)
        and not (params.get("enabled") == "1" and storage.disable)
        and params.get("storage") in (None, storage.name)
        and set(params.get("content", "").split(",")) - {""} <= set(storage.content)
    ]


def status(call: Call) -> dict[str, Any]:
    """GET /nodes/{node}/storage/{storage}/status."""
    name = call.params["storage"]
    call.token.need(f"/storage/{name}", *SEES, any_of=True)
    storage = call.cluster.storages.get(name)
    if storage is None or (storage.nodes and call.node not in storage.nodes):
        raise ApiError.parameter(storage="No such storage.")
    return _figures(call, storage)


def content(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/content: no checksum, no notes for templates."""
    name = call.params["storage"]
    call.token.need(f"/storage/{name}", *SEES, any_of=True)
    storage = call.cluster.enabled_storage(name, call.node)
    templates = "vztmpl" in storage.content and storage.type in PATH_TYPES
    if not templates or call.params.get("content") not in (None, "vztmpl"):
        return []
    listed = []
    for file in sorted(call.cluster.template_folder(storage, call.node).glob("*")):
        extension = TEMPLATE_NAME.fullmatch(file.name)
        if extension is None or file.name.startswith("."):
            continue
        state = file.stat()
        listed.append(
            {
                "volid": f"{name}:vztmpl/{file.name}",
                "content": "vztmpl",
                "format": f"t{extension[1].lower()}" if extension[1] else "tar",
                "size": state.st_size,
                "ctime": int(state.st_ctime),
            }
        )
    return listed


def delete(call: Call) -> str | None:
    """DELETE /nodes/{node}/storage/{storage}/content/{volume}: an absent volume is OK.

    Returns a UPID; with `delay`, None if the task was done within so many seconds.
    """
    storage_name = call.params["storage"]
    volume = call.params["volume"]
    volid = volume if ":" in volume else f"{storage_name}:{volume}"
    owner, _, rest = volid.partition(":")
    if owner != storage_name:
        raise ApiError.parameter(storage=f"volume '{volid}' is not on this storage")
    if not rest.startswith("vztmpl/"):
        raise ApiError(500, f"unable to parse volume ID '{volid}'")
    call.token.need(f"/storage/{storage_name}", "Datastore.Allocate")
    storage = call.cluster.enabled_storage(storage_name, call.node)
    file = call.cluster.template_folder(storage, call.node) / rest.removeprefix("vztmpl/")

    def work(task: Task) -> None:
        call.cluster.tasks_may_finish.wait()
        file.unlink(missing_ok=True)
        task.log.append(f"Removed volume '{volid}'")

    upid = call.cluster.start_task(call.node, "imgdel", storage_name, call.token, work)
    deadline = time.monotonic() + float(call.params.get("delay", "0"))
    while time.monotonic() < deadline:
        if call.cluster.tasks[upid].exitstatus == "OK":
            return None
        time.sleep(0.01)
    return upid
