"""Which storage templates go to, and which nodes have it.

A shared storage is one place, whichever node is asked for it.  One that is not shared is a place
on each node that has it; nodes that are offline are left out until they are back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncd.errors import PublishError, TargetUnavailableError
from syncd.proxmox.client import Client
from syncd.proxmox.privileges import LISTING, granting
from syncd.settings import ProxmoxTargetSettings
from syncd.template import Volume, volume_id

TEMPLATES = "vztmpl"
ROOT_FOLDERS = "rootdir"
_NETWORK_TYPES = ("nfs", "cifs", "cephfs", "glusterfs")


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of the cluster; `folder` is where its templates lie, if it has a `path`.

    With `mountpoint`, the path is only the storage's while something is mounted there.
    """

    name: str
    shared: bool
    enabled: bool
    content: frozenset[str]
    nodes: frozenset[str]
    path: Path | None
    folder: Path | None
    mountpoint: Path | None


@dataclass(frozen=True, slots=True)
class Place:
    """A storage on an online node, with its free and its total space in bytes."""

    storage: Storage
    node: str
    active: bool
    free: int
    total: int

    @property
    def label(self) -> str:
        """What the place is called in messages."""
        return self.storage.name if self.storage.shared else f"{self.storage.name} on {self.node}"

    @property
    def owner(self) -> str | None:
        """The node that a volume here belongs to; None for a shared storage."""
        return None if self.storage.shared else self.node


class Placement:
    """Finds storages and their places anew at each call: a cluster changes while syncd runs."""

    def __init__(self, client: Client, settings: ProxmoxTargetSettings) -> None:
        self._client = client
        self._settings = settings

    def storages(self) -> list[Storage]:
        """Return every storage the token may see; others are left out in silence."""
        return [_storage(entry) for entry in self._client.get("storage")]

    def nodes(self) -> dict[str, Mapping[str, Any]]:
        """Return what is known of each node that is not offline, by name.

        The status is `unknown` where nobody gathers statistics; such a node may well answer.
        """
        listed = self._client.get("nodes")
        return {entry["node"]: entry for entry in listed if entry.get("status") != "offline"}

    def offline(self) -> list[str]:
        """Return the names of the nodes that are offline."""
        return [e["node"] for e in self._client.get("nodes") if e.get("status") == "offline"]

    def places(self) -> list[Place]:
        """Return where templates are to be: once for a shared storage, else on each online node.

        The storage is the configured one, or the largest that is enabled for templates.  Raise
        PublishError when there is none that will do, TargetUnavailableError when none is online.
        """
        found = self.holding(TEMPLATES, self._settings.storage)
        name = max(found, key=lambda place: (place.total, place.storage.name)).storage.name
        chosen = [place for place in found if place.storage.name == name]
        active = [place for place in chosen if place.active]
        if not active:
            raise TargetUnavailableError(
                f"storage {name!r} of target {self._settings.name!r} is active on no online node"
            )
        return active[:1] if active[0].storage.shared else active

    def holding(self, content: str, name: str | None) -> list[Place]:
        """Return the places for a kind of content, on the named storage or on any.

        Raise PublishError when the storage is absent, hidden, disabled or for other content.
        """
        storages = {one.name: one for one in self.storages()}
        if name is not None:
            self._check(storages.get(name), name, content)
        fitting = {
            one.name: one
            for one in storages.values()
            if one.enabled and content in one.content and name in (None, one.name)
        }
        if not fitting:
            raise PublishError(
                f"target {self._settings.name!r} shows no enabled storage with content {content}",
                granting(self._settings.token_id, "/storage", LISTING[:1]),
            )
        found = [
            _place(fitting[entry["storage"]], node, entry)
            for node in sorted(self.nodes())
            for entry in self._of_node(node, content)
            if entry["storage"] in fitting
        ]
        if not found:
            raise TargetUnavailableError(
                f"no online node has {' or '.join(sorted(fitting))} "
                f"of target {self._settings.name!r}",
                "bring one of its nodes up",
            )
        return found

    def listed(self, place: Place) -> list[Volume]:
        """Return the templates that a place lists, growing ones too."""
        entries = self._client.get(
            f"nodes/{place.node}/storage/{place.storage.name}/content", content=TEMPLATES
        )
        return [Volume(entry["volid"], int(entry["size"]), place.owner) for entry in entries]

    def volume(self, place: Place, name: str) -> Volume | None:
        """Return a template as its place lists it now."""
        volid = volume_id(place.storage.name, name)
        return next((one for one in self.listed(place) if one.volid == volid), None)

    def _of_node(self, node: str, content: str) -> list[Mapping[str, Any]]:
        """Return a node's storages; none when it went away after it was listed as online."""
        try:
            listed: list[Mapping[str, Any]] = self._client.get(
                f"nodes/{node}/storage", content=content, enabled=1
            )
        except TargetUnavailableError:
            return []
        return listed

    def _check(self, storage: Storage | None, name: str, content: str) -> None:
        where = f"storage {name!r} of target {self._settings.name!r}"
        if storage is None:
            raise PublishError(
                f"{where} does not exist, or is hidden from this token",
                granting(self._settings.token_id, f"/storage/{name}", LISTING[:1]),
            )
        if not storage.enabled:
            raise PublishError(f"{where} is disabled", f"enable it: pvesm set {name} --disable 0")
        if content not in storage.content:
            kinds = ",".join(sorted({*storage.content, content}))
            raise PublishError(
                f"{where} is not for content {content}",
                f"allow it (pvesm set {name} --content {kinds}), or name another storage",
            )


def _storage(entry: Mapping[str, Any]) -> Storage:
    """Read an entry of storage.cfg as the API gives it."""
    path = entry.get("path")
    mounted = entry.get("is_mountpoint")
    mountpoint = None
    if path and (entry.get("type") in _NETWORK_TYPES or mounted in (1, "1", "yes", "on", "true")):
        mountpoint = Path(path)
    elif isinstance(mounted, str) and mounted.startswith("/"):
        mountpoint = Path(mounted)
    # pvesm(1): content-dirs overrides where a content type lies below the path.
    folders = dict(
        pair.split("=", 1) for pair in str(entry.get("content-dirs", "")).split(",") if "=" in pair
    )
    below = folders.get(TEMPLATES, "template/cache").lstrip("/")
    return Storage(
        name=entry["storage"],
        shared=bool(int(entry.get("shared", 0))) or entry.get("type") in _NETWORK_TYPES,
        enabled=not int(entry.get("disable", 0)),
        content=frozenset(str(entry.get("content", "")).split(",")),
        nodes=frozenset(filter(None, str(entry.get("nodes", "")).split(","))),
        path=Path(path) if path else None,
        folder=Path(path) / below if path else None,
        mountpoint=mountpoint,
    )


def _place(storage: Storage, node: str, entry: Mapping[str, Any]) -> Place:
    return Place(
        storage,
        node,
        bool(int(entry.get("active", 0))),
        int(entry.get("avail", 0)),
        int(entry.get("total", 0)),
    )
