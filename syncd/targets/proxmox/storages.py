"""The storages of a cluster, and the places that they have on its nodes.

A shared storage is one place, whichever node is asked for it.  A storage that is not shared is a
place on each node that has it; nodes that are offline are left out until they are online again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from syncd.errors import PublishError, TargetUnavailableError
from syncd.targets.naming import volume_id
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import ContentEntry, Node, NodeStatus, NodeStorage, StorageEntry
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.privileges import LISTING
from syncd.targets.target import Volume

log = structlog.stdlib.get_logger()

TEMPLATES = "vztmpl"
ROOT_FOLDERS = "rootdir"
LISTINGS = "nodes/*/content"
"""The paths whose answers change with a template (fnmatch)."""
_NODES_AT_A_TIME = 8
_SLOW = 5.0  # seconds without an answer after which a node is slow
_SLOW_FOR = 120.0  # seconds for which a slow node is not asked again
_NETWORK_TYPES = ("nfs", "cifs", "cephfs", "glusterfs")


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of the cluster, as storage.cfg describes it.

    `path` is None for a storage that is not a folder; `folder` is the folder of its templates.
    `mountpoint` is None, or where the storage must be mounted before its path may be written.
    """

    name: str
    shared: bool
    enabled: bool
    content: frozenset[str]
    path: Path | None
    folder: Path | None
    mountpoint: Path | None


@dataclass(frozen=True, slots=True)
class Place:
    """A storage on an online node, with its free and its total space in bytes."""

    storage: str
    shared: bool
    node: str
    active: bool
    free: int
    total: int

    @property
    def label(self) -> str:
        """The name of the place in messages."""
        return self.storage if self.shared else f"{self.storage} on {self.node}"

    @property
    def owner(self) -> str | None:
        """The node that the place's volumes belong to; None for a shared storage."""
        return None if self.shared else self.node


class Storages:
    """The storages of a cluster, as they were some seconds ago at most; see `memory`.

    Its methods raise PublishError, or TargetUnavailableError when no endpoint answers.
    """

    def __init__(self, client: Client, access: ClusterAccess) -> None:
        self._client = client
        self._access = access
        self._slow: dict[str, float] = {}  # when a node last took its time and did not answer
        self._shared: dict[str, bool] = {}  # whether a storage was shared when it was last seen

    def visible(self) -> list[Storage]:
        """Return every storage that the token may see; the API hides the others."""
        return [_storage(entry) for entry in self._client.recall("storage", list[StorageEntry])]

    def nodes(self) -> dict[str, Node]:
        """Return each node that is not offline, by its name.

        A node whose status is `unknown` is among them: it has no statistics, but may well answer.
        """
        listed = self._client.recall("nodes", list[Node])
        return {entry["node"]: entry for entry in listed if entry["status"] != "offline"}

    def machines(self) -> dict[str, str]:
        """Return the hardware of each node that is not offline, such as `x86_64`.

        A node that does not answer, or for which the token lacks Sys.Audit, is left out.
        """
        found = {}
        for node in self.nodes():
            with suppress(PublishError):
                status = self._client.recall(f"nodes/{node}/status", NodeStatus)
                if "current-kernel" in status:
                    found[node] = status["current-kernel"]["machine"]
        return found

    def offline(self) -> list[str]:
        """Return the names of the nodes that are offline."""
        listed = self._client.recall("nodes", list[Node])
        return [entry["node"] for entry in listed if entry["status"] == "offline"]

    def places(self) -> list[Place]:
        """Return the places of templates: one of a shared storage, else one on each online node.

        The storage is the configured storage, or the largest that is enabled for templates.  Raise
        PublishError when no storage fits, TargetUnavailableError when it is on no online node.
        """
        holding = self.holding(TEMPLATES, self._access.storage, once=True)
        name = max(holding, key=lambda place: (place.total, place.storage)).storage
        chosen = [place for place in holding if place.storage == name]
        active = [place for place in chosen if place.active]
        if not active:
            raise TargetUnavailableError(
                f"storage {name!r} of target {self._access.name!r} is active on no online node"
            )
        return active[:1] if active[0].shared else active

    def holding(self, content: str, name: str | None, *, once: bool = False) -> list[Place]:
        """Return the places for a kind of content, of the named storage or of every storage.

        With `once`, one node on which the named storage is active is enough if the storage is
        shared.  Else nodes are asked side by side, as a node whose storage is dead answers nothing
        for half a minute; such a node is left out for `_SLOW_FOR` seconds.

        Raise PublishError when the storage is absent, hidden, disabled or for other content,
        TargetUnavailableError when no online node has it.
        """
        places: list[Place] = []
        with ThreadPoolExecutor(_NODES_AT_A_TIME, thread_name_prefix="storages") as pool:
            nodes = self.answering()
            alone = once and name is not None and self._shared.get(name, True)
            for turn in [[node] for node in nodes] if alone else [nodes]:
                entries = pool.map(self._of_node, turn, [content] * len(turn))
                places += [
                    _place(node, entry)
                    for node, listed in zip(turn, entries, strict=True)
                    for entry in listed
                    if name in (None, entry["storage"])
                ]
                if any(place.active and (place.shared or not alone) for place in places):
                    break
        self._shared |= {place.storage: place.shared for place in places}
        if not places:
            raise self._nowhere(name, content)
        return places

    def on_node(self, node: str, content: str, name: str | None) -> list[Place]:
        """Return the places for a kind of content on one node, as `holding` does on all.

        There is none where the node does not answer, or did not a short while ago.
        """
        entries = self._of_node(node, content) if node in self.answering() else []
        return [_place(node, entry) for entry in entries if name in (None, entry["storage"])]

    def listed(self, place: Place, *, fresh: bool = False) -> list[Volume]:
        """Return the templates that a place lists, also those that are being written.

        With `fresh`, as it is now, else as it was some seconds ago at most.  A template whose size
        the place does not tell has size 0, so that it never counts as whole.
        """
        entries = self._client.recall(
            f"nodes/{place.node}/storage/{place.storage}/content",
            list[ContentEntry],
            fresh=fresh,
            content=TEMPLATES,
        )
        return [Volume(entry["volid"], entry.get("size", 0), place.owner) for entry in entries]

    def volume(self, place: Place, name: str) -> Volume | None:
        """Return a template as its place lists it now, or None."""
        volid = volume_id(place.storage, name)
        return next(
            (volume for volume in self.listed(place, fresh=True) if volume.volid == volid), None
        )

    def answering(self) -> list[str]:
        """Return the names of the nodes to ask: not offline, and not slow a short while ago."""
        now = time.monotonic()
        nodes = sorted(self.nodes())
        return [node for node in nodes if now - self._slow.get(node, -_SLOW_FOR) >= _SLOW_FOR]

    def _of_node(self, node: str, content: str) -> list[NodeStorage]:
        """Return a node's storages; none when the node does not answer."""
        begun = time.monotonic()
        try:
            return self._client.recall(
                f"nodes/{node}/storage", list[NodeStorage], content=content, enabled=1
            )
        except TargetUnavailableError as exc:
            if time.monotonic() - begun > _SLOW:
                log.warning("a node does not answer", node=node, error=str(exc))
                self._slow[node] = time.monotonic()
            return []

    def _nowhere(self, name: str | None, content: str) -> PublishError:
        """Return why no node that answers has the named storage, or any, for this content."""
        storages = {storage.name: storage for storage in self.visible()}
        if name is not None:
            self._check(storages.get(name), name, content)
        fitting = [
            storage.name
            for storage in storages.values()
            if storage.enabled and content in storage.content and name in (None, storage.name)
        ]
        if not fitting:
            return PublishError(
                f"target {self._access.name!r} shows no enabled storage with content {content}",
                self._client.granting("/storage", _showing(content)),
            )
        return TargetUnavailableError(
            f"no online node has {' or '.join(sorted(fitting))} of target {self._access.name!r}",
            "bring one of its nodes up",
        )

    def _check(self, storage: Storage | None, name: str, content: str) -> None:
        """Raise PublishError unless the storage is seen, enabled and for this content."""
        where = f"storage {name!r} of target {self._access.name!r}"
        if storage is None:
            raise PublishError(
                f"{where} does not exist, or is hidden from this token",
                self._client.granting(f"/storage/{name}", _showing(content)),
            )
        if not storage.enabled:
            raise PublishError(f"{where} is disabled", f"enable it: pvesm set {name} --disable 0")
        if content not in storage.content:
            kinds = ",".join(sorted({*storage.content, content}))
            raise PublishError(
                f"{where} is not for content {content}",
                f"allow it (pvesm set {name} --content {kinds}), or name another storage",
            )


def _showing(content: str) -> tuple[str, ...]:
    """Return the privilege that shows a storage; for root file systems, the one needed anyway."""
    return ("Datastore.AllocateSpace",) if content == ROOT_FOLDERS else LISTING[:1]


def _storage(entry: StorageEntry) -> Storage:
    """Return the storage that an entry of storage.cfg describes."""
    path = entry.get("path")
    mounted = entry.get("is_mountpoint", "")
    mountpoint = None
    if path and (entry["type"] in _NETWORK_TYPES or mounted in ("1", "yes", "on", "true")):
        mountpoint = Path(path)
    elif mounted.startswith("/"):
        mountpoint = Path(mounted)
    # pvesm(1): content-dirs overrides where a content type lies below the path.
    folders = dict(
        pair.split("=", 1) for pair in entry.get("content-dirs", "").split(",") if "=" in pair
    )
    below = folders.get(TEMPLATES, "template/cache").lstrip("/")
    return Storage(
        name=entry["storage"],
        shared=_is_shared(entry),
        enabled=not entry.get("disable", False),
        content=frozenset(entry.get("content", "").split(",")),
        path=Path(path) if path else None,
        folder=Path(path) / below if path else None,
        mountpoint=mountpoint,
    )


def _place(node: str, entry: NodeStorage) -> Place:
    return Place(
        entry["storage"],
        _is_shared(entry),
        node,
        entry.get("active", False),
        entry.get("avail", 0),
        entry.get("total", 0),
    )


def _is_shared(entry: StorageEntry | NodeStorage) -> bool:
    return entry.get("shared", False) or entry["type"] in _NETWORK_TYPES
