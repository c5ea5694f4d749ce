"""Containers made from templates: placed, created, looked at, and cleaned up when it went wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from syncd.container import Container, ContainerRequest, Startup
from syncd.errors import PublishError, RequestError, TargetUnavailableError
from syncd.job import Advance
from syncd.proxmox import tasks
from syncd.proxmox.client import BrokenOffError, Client
from syncd.proxmox.placement import ROOT_FOLDERS, Placement
from syncd.settings import ProxmoxTargetSettings
from syncd.template import Format, Volume

STARTUP_SINCE = (9, 1)
"""The first version whose API takes `entrypoint` and `env`."""
_TASK = "vzcreate"
_VMIDS = 10  # attempts at a VMID that nobody else takes
_TAKEN = re.compile(r"already exists|already in use|is in use|config file already", re.IGNORECASE)
_TOKENS_MAY = ("nesting",)


class Containers:
    """Makes containers on one target."""

    def __init__(
        self, client: Client, placement: Placement, settings: ProxmoxTargetSettings
    ) -> None:
        self._client = client
        self._placement = placement
        self._settings = settings

    def create(
        self,
        request: ContainerRequest,
        volumes: Sequence[Volume],
        form: Format,
        startup: Startup,
        advance: Advance,
    ) -> Container:
        """Make a container from a template that lies in `volumes`; return it once it is there.

        An `oci` template brings its own startup; for others `startup` is given to the API where
        that has the parameters.  Raise RequestError for what cannot be meant, PublishError when
        Proxmox VE refuses or fails, with the last lines of its log; a container that was
        half-made is removed then.
        """
        self._check_features(request)
        storage, node, volume = self._placed(request, volumes)
        wanted = self._wanted(request, storage, volume.volid)
        warnings: list[str] = []
        if form is Format.ROOTFS:
            more, said = self._startup(startup)
            wanted |= more
            warnings += said
        vmid, upid = self._begin(request, node, wanted)
        exitstatus = tasks.follow(self._client, upid, advance)
        if exitstatus.startswith(tasks.WARNINGS):
            warnings.append(f"Proxmox VE warns: {tasks.log_end(self._client, upid)}")
        elif exitstatus != tasks.OK:
            raise self._failed(node, vmid, request, upid, exitstatus)
        config = self._client.get(f"nodes/{node}/lxc/{vmid}/config")
        ostype = str(config.get("ostype", ""))
        if ostype == "unmanaged":
            warnings.append(
                "ostype is unmanaged: Proxmox VE did not recognise the distribution, so host name "
                "and network are not set up inside; check /etc/os-release in the image"
            )
        running = request.start and self._start(node, vmid, warnings, advance)
        return Container(
            vmid, node, request.hostname, volume.volid, ostype, running, tuple(warnings)
        )

    def _check_features(self, request: ContainerRequest) -> None:
        """Raise RequestError for features that Proxmox VE keeps for root@pam itself."""
        if self._client.is_local or not request.features:
            return
        names = [one.partition("=")[0] for one in request.features.split(",")]
        if refused := [name for name in names if name not in _TOKENS_MAY]:
            raise RequestError(
                f"the features {', '.join(refused)} are refused to API tokens",
                "only root@pam itself may set them: pct set VMID --features ... on the node",
            )

    def _placed(
        self, request: ContainerRequest, volumes: Sequence[Volume]
    ) -> tuple[str, str, Volume]:
        """Choose the root file system's storage, the node, and the template as it is seen there."""
        name = request.storage or self._settings.rootfs_storage
        roots = [p for p in self._placement.holding(ROOT_FOLDERS, name) if p.active]
        seen = {volume.node: volume for volume in volumes}
        nodes = self._placement.nodes()
        fitting = [
            node
            for node in {place.node for place in roots}
            if request.node in (None, node) and (None in seen or node in seen)
        ]
        if not fitting:
            where = f"node {request.node!r}" if request.node else "no online node"
            raise TargetUnavailableError(
                f"{where} of target {self._settings.name!r} "
                f"{'does not have' if request.node else 'has'} both the template and a storage "
                "for root file systems",
                "name another node or storage, or bring the node up",
            )
        node = max(fitting, key=lambda one: (_free_memory(nodes[one]), one))
        largest = max((p for p in roots if p.node == node), key=lambda p: (p.free, p.storage.name))
        return largest.storage.name, node, seen.get(node) or seen[None]

    def _wanted(self, request: ContainerRequest, storage: str, volid: str) -> dict[str, Any]:
        """Return the parameters of the call that every version takes."""
        bridge = request.bridge or self._settings.bridge
        wanted: dict[str, Any] = {
            "ostemplate": volid,
            "hostname": request.hostname,
            "cores": request.cores,
            "memory": request.memory,
            "swap": request.swap,
            "rootfs": f"{storage}:{request.size}",
            "net0": request.net0 or f"name=eth0,ip=dhcp,bridge={bridge}",
            "unprivileged": int(request.unprivileged),
            "features": request.features,
            "tags": ";".join(request.tags) or None,
            "ssh-public-keys": "\n".join(request.ssh_keys) or None,
            "pool": request.pool or self._settings.pool,
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def _startup(self, startup: Startup) -> tuple[dict[str, str], list[str]]:
        """Return how the image wants to be run, where the API has parameters for it."""
        more = {"entrypoint": startup.entrypoint, "env": startup.env}
        more = {key: value for key, value in more.items() if value}
        if more and self._client.version() < STARTUP_SINCE:
            return {}, [
                f"this Proxmox VE has no parameter for the image's {' and '.join(more)}; "
                "the container runs /sbin/init"
            ]
        if self._client.is_local and "\0" in more.get("env", ""):
            # It would have to be an argument of pvesh, and arguments end at NUL (execve(2)).
            del more["env"]
            return more, [*startup.warnings, "pvesh takes one variable at most: env is left out"]
        return more, list(startup.warnings)

    def _begin(
        self, request: ContainerRequest, node: str, wanted: Mapping[str, Any]
    ) -> tuple[int, str]:
        """Start the creation with the next free VMID; return that and the task's UPID."""
        for _ in range(_VMIDS):
            vmid = request.vmid or int(self._client.get("cluster/nextid"))
            known = frozenset(tasks.own(self._client, _TASK))
            try:
                return vmid, str(self._client.post(f"nodes/{node}/lxc", vmid=vmid, **wanted))
            except BrokenOffError as exc:
                return vmid, self._begun(exc, vmid, known)
            except PublishError as exc:
                if request.vmid or not _TAKEN.search(exc.what):
                    raise
        raise TargetUnavailableError(
            f"{_VMIDS} VMIDs in turn were taken by others on target {self._settings.name!r}"
        )

    def _begun(self, broken: BrokenOffError, vmid: int, known: frozenset[str]) -> str:
        """Return the task of a creation whose connection broke off, or say that there is none."""
        for upid in tasks.own(self._client, _TASK):
            # UPID:node:pid:pstart:starttime:type:id:user:
            if upid not in known and upid.split(":")[6] == str(vmid):
                return upid
        raise TargetUnavailableError(
            f"the creation of container {vmid} broke off and left no task: {broken.what}",
            "ask for it again",
        ) from broken

    def _failed(
        self, node: str, vmid: int, request: ContainerRequest, upid: str, exitstatus: str
    ) -> PublishError:
        """Remove what a failed creation left, and tell how it failed."""
        left = "" if _TAKEN.search(exitstatus) else self._remove(node, vmid, request)
        return PublishError(
            f"container {vmid} ({request.hostname}) could not be made on {node}: {exitstatus}"
            + left,
            f"its task's log ends: {tasks.log_end(self._client, upid)}",
        )

    def _remove(self, node: str, vmid: int, request: ContainerRequest) -> str:
        """Ensure that a half-made container is gone; return what is to be said if it is not.

        It is ours: Proxmox VE writes its configuration, locked, before it names a task.
        """
        try:
            config = self._client.get(f"nodes/{node}/lxc/{vmid}/config")
        except PublishError:
            return ""
        if config.get("hostname") != request.hostname:
            return ""
        try:
            upid = self._client.delete(f"nodes/{node}/lxc/{vmid}")
            result = tasks.follow(self._client, upid, lambda _: None)
        except PublishError as exc:
            result = str(exc)
        if result == tasks.OK:
            return ""
        return f"; it was left half-made ({result}): pct unlock {vmid} && pct destroy {vmid}"

    def _start(self, node: str, vmid: int, warnings: list[str], advance: Advance) -> bool:
        """Start the container by a task of its own, whose failure is told and undoes nothing."""
        try:
            upid = str(self._client.post(f"nodes/{node}/lxc/{vmid}/status/start"))
            exitstatus = tasks.follow(self._client, upid, advance)
            if exitstatus == tasks.OK or exitstatus.startswith(tasks.WARNINGS):
                return True
            failure = f"{exitstatus}: {tasks.log_end(self._client, upid)}"
        except PublishError as exc:
            failure = str(exc)
        warnings.append(f"the container is there but did not start: {failure}")
        return False


def _free_memory(node: Mapping[str, Any]) -> int:
    """Return a node's free memory in bytes; 0 where the token may not see it (Sys.Audit)."""
    return int(node.get("maxmem", 0)) - int(node.get("mem", 0))
