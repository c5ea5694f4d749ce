"""The state of a make-believe Proxmox VE cluster: nodes, storages, tokens, tasks, containers.

Storages of the path-based types are real folders, so what the real ones do by nature happens here
by nature too: a file that appears by rename is listed at once, a growing file is listed while it
grows, a second writer mixes with the first.  The HTTP side is in `pve`, the calls in
`pve_storage`, `pve_lxc` and `pve_upload`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GIB = 1 << 30
PATH_TYPES = frozenset({"dir", "nfs", "cifs", "cephfs", "btrfs"})
SHARED_TYPES = frozenset({"nfs", "cifs", "cephfs"})
LISTED_BASE_PATHS = ("/", "/access", "/nodes", "/pool", "/sdn", "/storage", "/vms")


class ApiError(Exception):
    """An answer other than 200: `reason` goes into the status line, `errors` into the body."""

    def __init__(self, status: int, reason: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(status, reason, errors)
        self.status = status
        self.reason = reason
        self.errors = errors

    @classmethod
    def parameter(cls, **errors: str) -> ApiError:
        """Make the answer to a parameter that fails its schema; `_` in a name stands for `-`."""
        named = {name.replace("_", "-"): text for name, text in errors.items()}
        return cls(400, "Parameter verification failed.", named)


class TaskError(Exception):
    """What ends a task with an `exitstatus` other than OK."""


@dataclass
class Node:
    """A member of the cluster; offline ones answer nothing, calls proxied to them end in 595."""

    name: str
    online: bool = True
    status: str = "online"
    """What the index of nodes says of it while it is online: `unknown` without statistics."""
    hangs: float | None = None
    """Seconds after which a call about its storages ends in 596, where its storage is dead.

    Measured on pve-manager 9.2.11 (facts.md): 30 s.
    """
    machine: str = "x86_64"
    mem: int = 4 * GIB
    maxmem: int = 16 * GIB
    spool_avail: int = 20 * GIB
    """Free bytes under /var/tmp, where uploads are spooled before they are copied."""


@dataclass
class Storage:
    """An entry of storage.cfg; `nodes` empty means all, `avail` overrides what is left."""

    name: str
    type: str = "dir"
    content: tuple[str, ...] = ("vztmpl",)
    shared: bool = False
    nodes: tuple[str, ...] = ()
    disable: bool = False
    active: bool = True
    total: int = 100 * GIB
    avail: int | None = None
    path: str = ""
    """What storage.cfg says, where a test has something else mounted there than the storage."""

    def __post_init__(self) -> None:
        self.shared = self.shared or self.type in SHARED_TYPES


@dataclass
class Token:
    """An API token with its effective ACL: privileges per path.

    As in PVE an entry holds for everything below its path, unless the path is in `unpropagated`,
    and an entry further down replaces what came from above.
    """

    id: str
    secret: str
    acl: dict[str, frozenset[str]]
    unpropagated: frozenset[str] = frozenset()

    def privileges(self, path: str) -> dict[str, int]:
        """Each privilege on `path`, with 1 where it reaches further down."""
        parts = [part for part in path.split("/") if part]
        found: dict[str, int] = {}
        for depth in range(len(parts) + 1):
            entry = "/" + "/".join(parts[:depth])
            propagates = entry not in self.unpropagated
            if entry in self.acl and (propagates or depth == len(parts)):
                found = dict.fromkeys(self.acl[entry], int(propagates))
        return found

    def may(self, path: str, *privileges: str, any_of: bool = False) -> bool:
        """Whether the token has all (or any) of the privileges on the path."""
        held = self.privileges(path)
        wanted = [privilege in held for privilege in privileges]
        return any(wanted) if any_of else all(wanted)

    def need(self, path: str, *privileges: str, any_of: bool = False) -> None:
        """Raise the 403 of PVE unless the token has all (or any) of the privileges on the path."""
        if not self.may(path, *privileges, any_of=any_of):
            listed = ("|" if any_of else ", ").join(privileges)
            raise ApiError(403, f"Permission check failed ({path}, {listed})")


@dataclass
class Task:
    """A worker in the background; `exitstatus` is None as long as it runs."""

    upid: str
    node: str
    type: str
    id: str
    user: str
    starttime: int
    log: list[str] = field(default_factory=list)
    exitstatus: str | None = None
    warnings: int = 0
    thread: threading.Thread | None = None

    def join(self) -> None:
        """Wait until the task has stopped."""
        if self.thread is not None and self.thread.ident is not None:  # else it is about to start
            self.thread.join()

    def warn(self, text: str) -> None:
        """Log a warning; a task that warned ends with `WARNINGS: N` instead of OK."""
        self.log.append(f"WARN: {text}")
        self.warnings += 1


@dataclass
class RootVolume:
    """A volume of a container: whose it is, of which id mapping, and what was unpacked into it."""

    owner: int
    unprivileged: bool
    content: str = ""
    """The template that was unpacked last, empty before that."""
    snapshots: dict[str, str] = field(default_factory=dict)
    """By the name of a snapshot what was in it then."""


@dataclass
class Container:
    """A guest: its configuration as the API shows it, and what waits for its next start."""

    vmid: int
    node: str
    config: dict[str, Any]
    running: bool = False
    pool: str | None = None
    pending: dict[str, Any] = field(default_factory=dict)
    """By option the new value, None for one that is to be deleted."""
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name the configuration as it was."""


@dataclass
class Request:
    """One request as it arrived, for tests to look at and for the contract to be held against."""

    method: str
    path: str
    params: dict[str, str]
    token: str | None = None
    node: str = ""
    """The endpoint that took it."""
    parts: tuple[str, ...] = ()
    """The names of a multipart body's parts, in the order sent."""
    whole: bool = True
    """Whether its body was read; of one that was refused unread, `params` are not known."""
    status: int | None = None
    """What was answered; None for a connection that was dropped."""


class Cluster:
    """What all endpoints of one cluster share, and the knobs that tests turn."""

    def __init__(self, root: Path, nodes: Iterable[str], version: str) -> None:
        self.root = root
        self.version = version
        self.nodes = {name: Node(name) for name in nodes}
        self.storages: dict[str, Storage] = {}
        self.tokens: dict[str, Token] = {}
        self.tasks: dict[str, Task] = {}
        self.containers: dict[int, Container] = {}
        self.volumes: dict[str, RootVolume] = {}
        self.requests: list[Request] = []
        self.crashes: list[BaseException] = []
        self.lock = threading.RLock()
        self._pids = itertools.count(0x1000)

        # Knobs.
        self.error_delay = 0.02  # seconds before a 401 or 403; the real one takes 3
        self.hang_ups = 0  # so many requests are dropped before they are looked at
        self.refusal: ApiError | None = None  # answered to everything
        self.lost_answers = 0  # so many requests are carried out, and dropped instead of answered
        self.tasks_may_finish = threading.Event()  # cleared, every task stops half way
        self.tasks_may_finish.set()
        self.ostype = "debian"  # what the next containers turn out to be
        self.image_config: dict[str, Any] = {
            "entrypoint": "/bin/app",
            "env": "PATH=/bin",
            "cmode": "console",
        }  # what a creation takes from each OCI archive, a template whose name ends in .tar
        self.create_failure: str | None = None  # why the next containers fail in their task
        self.create_leaves = False  # whether a failed creation leaves its container behind
        self.create_warnings: tuple[str, ...] = ()
        self.start_failure: str | None = None
        self.snapshot_failure: str | None = None  # why the next snapshots fail in their task
        self.bad_images: set[str] = set()  # templates whose containers do not start
        self.mute_images: set[str] = set()  # templates whose containers get no address
        self.deaf = False  # whether containers do not shut down unless they are forced

        # What went wrong without an answer saying so.
        self.spool_leaks: list[str] = []  # files left in /var/tmp for good
        self.overwritten: list[str] = []  # volume ids that an upload wrote over
        self.collisions: list[str] = []  # volume ids that two uploads wrote at a time
        self.writing: list[Path] = []  # destinations of the uploads under way

    def token(self, token_id: str, acl: Mapping[str, Iterable[str]], *exact: str) -> Token:
        """Make (or replace) a token; the paths in `exact` do not propagate."""
        entries = {path: frozenset(privileges) for path, privileges in acl.items()}
        token = Token(token_id, f"secret-of-{token_id}", entries, frozenset(exact))
        self.tokens[token_id] = token
        return token

    def storage(self, storage: Storage) -> Storage:
        """Add an entry to storage.cfg."""
        self.storages[storage.name] = storage
        return storage

    def enabled_storage(self, name: str, node: str) -> Storage:
        """Return the storage, usable on the node, or raise the 500 that PVE answers."""
        storage = self.storages.get(name)
        if storage is None:
            raise ApiError(500, f"storage '{name}' does not exist")
        if storage.disable:
            raise ApiError(500, f"storage '{name}' is disabled")
        if storage.nodes and node not in storage.nodes:
            raise ApiError(500, f"storage '{name}' is not available on node '{node}'")
        return storage

    def template_folder(self, storage: Storage, node: str) -> Path:
        """Where a path-based storage keeps its templates: one folder, or one for each node."""
        owner = "shared" if storage.shared else node
        return self.root / owner / storage.name / "template" / "cache"

    def used(self, storage: Storage, node: str) -> int:
        """Bytes in use."""
        files = self.template_folder(storage, node).glob("*")
        return sum(file.stat().st_size for file in files)

    def avail(self, storage: Storage, node: str) -> int:
        """Bytes free."""
        if storage.avail is not None:
            return storage.avail
        return max(storage.total - self.used(storage, node), 0)

    def template(self, volid: str, node: str) -> Path:
        """Return the file behind a template's volume id, whether it is there or not."""
        storage, _, name = volid.partition(":vztmpl/")
        return self.template_folder(self.storages[storage], node) / name

    def start_task(
        self, node: str, kind: str, what: str, token: Token, work: Callable[[Task], None]
    ) -> str:
        """Run `work` in the background and return its UPID."""
        pid, now = next(self._pids), int(time.time())
        upid = f"UPID:{node}:{pid:08X}:{pid * 7:08X}:{now:08X}:{kind}:{what}:{token.id}:"
        task = Task(upid, node, kind, what, token.id, now)
        self.tasks[upid] = task
        task.thread = threading.Thread(target=self._run, args=(task, work), name=upid)
        task.thread.start()
        return upid

    def _run(self, task: Task, work: Callable[[Task], None]) -> None:
        try:
            work(task)
        except TaskError as failure:
            task.log.append(f"TASK ERROR: {failure}")
            task.exitstatus = str(failure)
        except Exception as crash:  # noqa: BLE001 - reported when the cluster is closed
            self.crashes.append(crash)
            task.exitstatus = "unexpected status"
        else:
            result = f"WARNINGS: {task.warnings}" if task.warnings else "OK"
            task.log.append(f"TASK {result}")
            task.exitstatus = result

    def result(self, upid: str) -> str | None:
        """Wait until a task has stopped; return its `exitstatus`."""
        self.tasks[upid].join()
        return self.tasks[upid].exitstatus

    def join_tasks(self) -> None:
        """Let every task finish, and wait for it."""
        self.tasks_may_finish.set()
        while running := [task for task in list(self.tasks.values()) if task.exitstatus is None]:
            for task in running:
                task.join()
