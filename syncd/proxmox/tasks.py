"""Tasks of Proxmox VE: followed to their end, found again, their logs quoted.

Most changes are tasks that run after the answer.  Only an `exitstatus` of OK is a success; a
container's creation may also end with warnings.
"""

from __future__ import annotations

import time

from syncd.errors import PublishError, TargetUnavailableError
from syncd.job import Advance
from syncd.proxmox.client import Client

OK = "OK"
WARNINGS = "WARNINGS:"
_PAUSE_MIN, _PAUSE_MAX = 0.1, 2.0  # seconds between two looks
_PATIENCE = 600.0  # seconds without an answer after which a task is given up
_LOG_LINES = 5000
_TAIL = 8


def node_of(upid: str) -> str:
    """Return the node that a task runs on: `UPID:node:pid:pstart:starttime:type:id:user:`."""
    parts = upid.split(":") if isinstance(upid, str) else []
    if len(parts) < 8 or parts[0] != "UPID":
        raise PublishError(f"Proxmox VE answered {upid!r:.80} where it should name a task")
    return parts[1]


def follow(client: Client, upid: str, advance: Advance) -> str:
    """Wait until a task has stopped and return its `exitstatus`.

    `advance` is called with 0 at each look, so that a stopping daemon need not wait.  An
    endpoint that is away for a while is waited for; raise TargetUnavailableError when it stays
    away.
    """
    path = f"nodes/{node_of(upid)}/tasks/{upid}/status"
    pause, heard = _PAUSE_MIN, time.monotonic()
    while True:
        try:
            status = client.get(path)
            heard = time.monotonic()
        except TargetUnavailableError:
            if time.monotonic() - heard > _PATIENCE:
                raise
        else:
            if status.get("status") == "stopped":
                return str(status.get("exitstatus", "no exitstatus"))
        advance(0)
        time.sleep(pause)
        pause = min(pause * 1.5, _PAUSE_MAX)


def log(client: Client, upid: str) -> list[str]:
    """Return the lines that a task has logged so far."""
    entries = client.get(f"nodes/{node_of(upid)}/tasks/{upid}/log", limit=_LOG_LINES)
    return [str(entry.get("t", "")) for entry in entries]


def log_end(client: Client, upid: str) -> str:
    """Return the last lines of a task's log, for a message; empty when it cannot be read."""
    try:
        return " / ".join(line for line in log(client, upid)[-_TAIL:] if line.strip())
    except PublishError:
        return ""


def own(client: Client, kind: str, *, running: bool = False) -> list[str]:
    """Return the UPIDs of this token's recent tasks of a kind, or only of those that still run.

    Other tokens' tasks are shown as well, where the token has Sys.Audit.
    """
    return [
        str(entry["upid"])
        for entry in client.get("cluster/tasks")
        if entry.get("type") == kind and not (running and entry.get("endtime"))
    ]


def runs(client: Client, upid: str) -> bool:
    """Tell whether a task has not ended yet."""
    status = client.get(f"nodes/{node_of(upid)}/tasks/{upid}/status")
    return bool(status.get("status") != "stopped")
