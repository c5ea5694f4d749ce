"""Tasks of Proxmox VE: wait for the end of a task, find a task again, read its log.

The API answers most orders with a task that runs after the answer.  Only the `exitstatus` OK is a
success; the creation of a container may also end with warnings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress

from syncd.errors import PublishError, TargetUnavailableError
from syncd.progress import Advance
from syncd.targets.proxmox.answers import LogLine, TaskEntry, TaskStatus
from syncd.targets.proxmox.client import ON_NODES, Client

OK = "OK"
WARNINGS = "WARNINGS:"
_PAUSE_MIN, _PAUSE_MAX = 0.1, 2.0  # seconds between two looks
_PATIENCE = 600.0  # seconds without an answer after which nobody waits for a task any longer
_LOG_LINES = 5000
_SAFE = re.compile(r"(OK|WARNINGS:.*)")
_TAIL = 8
_SETTLING = 0.5


def node_of(upid: str) -> str:
    """Return the node that a task runs on; raise PublishError when `upid` is not a UPID.

    A UPID is `UPID:node:pid:pstart:starttime:type:id:user:`.
    """
    parts = upid.split(":")
    if len(parts) < 8 or parts[0] != "UPID":
        raise PublishError(f"Proxmox VE answered {upid!r:.80} where it should name a task")
    return parts[1]


def follow(client: Client, upid: str, advance: Advance, changed: str = ON_NODES) -> str:
    """Wait until a task has stopped, and return its `exitstatus`.

    `changed` is the pattern of the paths whose answers the task changes.  `advance` is called with
    0 before each pause, so that a daemon that stops need not wait.  Raise TargetUnavailableError
    when no endpoint has answered for ten minutes.
    """
    path = f"nodes/{node_of(upid)}/tasks/{upid}/status"
    pause, answered = _PAUSE_MIN, time.monotonic()
    while True:
        try:
            status = client.get(path, TaskStatus)
            answered = time.monotonic()
        except TargetUnavailableError:
            if time.monotonic() - answered > _PATIENCE:
                raise
        else:
            if status["status"] == "stopped":
                client.forget(changed)  # it may have been asked for meanwhile
                return status.get("exitstatus", "no exitstatus")
        advance(0)
        time.sleep(pause)
        pause = min(pause * 1.5, _PAUSE_MAX)


def finish(client: Client, upid: str, failing: str, advance: Advance) -> str:
    """Wait for a task; return its good exit status, which may be with warnings.

    Raise PublishError, which begins with `failing` and has the end of the log, for any other.
    """
    exitstatus = follow(client, upid, advance)
    if _SAFE.fullmatch(exitstatus):
        return exitstatus
    raise PublishError(f"{failing}: {exitstatus}", f"its task's log ends: {log_end(client, upid)}")


def settle(client: Client, node: str, vmid: int, kinds: Iterable[str], advance: Advance) -> None:
    """Wait until no task of these kinds is under way for a guest on a node.

    A process may have died, or its connection broken, while its task went on.
    """
    for kind in kinds:
        # UPID:node:pid:pstart:starttime:type:id:user:
        while any(
            runs and upid.split(":")[6] == str(vmid)
            for upid, runs in own(client, kind, [node]).items()
        ):
            advance(0)
            time.sleep(_SETTLING)


def log(client: Client, upid: str) -> list[str]:
    """Return the lines that a task has logged so far."""
    path = f"nodes/{node_of(upid)}/tasks/{upid}/log"
    return [line["t"] for line in client.get(path, list[LogLine], limit=_LOG_LINES)]


def log_end(client: Client, upid: str) -> str:
    """Return the last lines of a task's log for a message; empty when it cannot be read."""
    try:
        return " / ".join(line for line in log(client, upid)[-_TAIL:] if line.strip())
    except PublishError:
        return ""


def warned(client: Client, upid: str) -> str:
    """Return the warnings of a task, which are the lines of its log that begin with `WARN`.

    Where its log cannot be read, or has none, the result is the end of the log.
    """
    with suppress(PublishError):
        if lines := [line for line in log(client, upid) if line.startswith("WARN")]:
            return " / ".join(lines)
    return log_end(client, upid)


def own(client: Client, kind: str, nodes: Iterable[str]) -> dict[str, bool]:
    """Return the recent tasks of a kind on some nodes: by UPID, whether the task still runs.

    The tasks are this token's own.  Where the token has Sys.Audit on a node, the tasks of other
    tokens are among them.  A node that does not answer is left out.  Each node is asked for its
    own list, since `GET /cluster/tasks` shows a token not even its own tasks unless the token has
    Sys.Audit on `/` (measured on pve-manager 9.2.11).
    """
    found: dict[str, bool] = {}
    for node in nodes:
        with suppress(TargetUnavailableError):
            listed = client.get(
                f"nodes/{node}/tasks", list[TaskEntry], source="all", typefilter=kind
            )
            found |= {entry["upid"]: "endtime" not in entry for entry in listed}
    return found
