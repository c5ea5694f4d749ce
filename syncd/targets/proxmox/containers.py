"""Containers created from templates: the creation, what is set after it, the start.

What a failed creation leaves behind is removed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from syncd.errors import (
    ConnectionLostError,
    PublishError,
    StoppedError,
    TargetUnavailableError,
)
from syncd.formats import Format
from syncd.progress import Advance
from syncd.targets.container import Container, ContainerSpec
from syncd.targets.origin import Origin
from syncd.targets.property_string import options_of
from syncd.targets.proxmox import parameters, tasks
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.answers import ContainerConfig
from syncd.targets.proxmox.client import Client, DeniedError
from syncd.targets.proxmox.inventory import guests
from syncd.targets.proxmox.placement import choose
from syncd.targets.proxmox.privileges import Duty, container_duties
from syncd.targets.proxmox.storages import Storages
from syncd.targets.target import PublishedImage

_TASK = "vzcreate"
_VMIDS = 10  # attempts at a VMID, which others may take first
_TASK_ATTEMPTS = 4  # searches for the task of a creation whose connection was lost
_TASK_PAUSE = 0.5  # seconds between two searches
_TAKEN = re.compile(r"already exists|already in use|is in use|config file already", re.IGNORECASE)


class Containers:
    """Creates containers on one target."""

    def __init__(self, client: Client, storages: Storages, access: ClusterAccess) -> None:
        self._client = client
        self._storages = storages
        self._access = access

    def create(
        self, request: ContainerSpec, image: PublishedImage, begin: Callable[[], Advance]
    ) -> Container:
        """Create a container from a published image; return it once it exists.

        `begin` is called once Proxmox VE makes it, and gives the advance of the wait.

        An `oci` template contains its startup.  For a `rootfs` template the startup is sent to the
        API, where the API has parameters for it.  The container's description ends with the
        image's origin, whose mark tells the container from others, whatever happens to the answers.

        Raise RequestError for what the API would refuse to this token or with this template,
        TargetUnavailableError when no online node fits, PublishError when Proxmox VE refuses or the
        task fails, with the last lines of the task's log; an incomplete container is removed then.
        Once the creation was asked for, each error and result names VMID and node, and a container
        that was made is a result, with a warning for what failed after that.
        """
        as_root = self._client.is_local
        version = self._client.version()
        parameters.check(request, image.format, image.startup, version, as_root=as_root)
        self._check_privileges(request)
        storage, node, volume = choose(
            self._storages, self._access, request, image.volumes, image.nodes
        )
        params = parameters.of_creation(request, self._access, storage, volume.volid, image)
        warnings: list[str] = []
        if image.format is Format.ROOTFS:
            warnings += parameters.for_rootfs(
                params, request, image.startup, version, as_root=as_root
            )
        vmid, upid = self._begin(request, node, params, image.origin)
        advance = begin()
        exitstatus = self._followed(node, vmid, upid, advance)
        if exitstatus.startswith(tasks.WARNINGS):
            warnings.append(f"Proxmox VE warns: {tasks.warned(self._client, upid)}")
        elif exitstatus != tasks.OK:
            leftover = "" if _TAKEN.search(exitstatus) else self._remove(node, vmid, image.origin)
            raise PublishError(
                f"container {vmid} ({request.hostname}) could not be made on {node}: {exitstatus}"
                + leftover,
                f"its task's log ends: {tasks.log_end(self._client, upid)}",
            )
        made = Container(vmid, node, request.hostname, volume.volid, "", False, tuple(warnings))
        return self._completed(made, request, image, advance)

    def create_again(
        self, request: ContainerSpec, image: PublishedImage, begin: Callable[[], Advance]
    ) -> Container:
        """Complete the container with our mark, if there is one; else create one.

        Raise TargetUnavailableError where the container is still being made, else as `create`.
        """
        for guest in guests(self._client, hostname=request.hostname):
            if guest.origin is None or guest.origin.mark != image.origin.mark:
                continue
            if guest.lock:
                raise TargetUnavailableError(
                    f"container {guest.vmid} is still being made on {guest.node} "
                    f"(lock: {guest.lock})",
                    "ask for it again later",
                )
            volids = {volume.node: volume.volid for volume in image.volumes}
            volume = volids.get(guest.node) or volids.get(None, "")
            made = Container(guest.vmid, guest.node, guest.hostname, volume, "", guest.running)
            return self._completed(made, request, image, begin())
        return self.create(request, image, begin)

    def _completed(
        self, made: Container, request: ContainerSpec, image: PublishedImage, advance: Advance
    ) -> Container:
        """Set and start what the creation left to do; a failure becomes a warning."""
        warnings = [*made.warnings]
        config = self._config(made.node, made.vmid, warnings)
        ostype = config.get("ostype", "")
        if ostype == "unmanaged" != request.ostype:
            warnings.append(
                "ostype is unmanaged: Proxmox VE did not recognise the distribution, so host name "
                "and network are not set up inside; check /etc/os-release in the image"
            )
        running = made.running
        if not running:
            changes = (
                parameters.after_oci(request, image.startup, config)
                if image.format is Format.OCI
                else {}
            )
            ready = self._change(made.node, made.vmid, changes, warnings)
            running = (
                request.start and ready and self._start(made.node, made.vmid, warnings, advance)
            )
        return replace(made, ostype=ostype, running=running, warnings=tuple(warnings))

    def _check_privileges(self, request: ContainerSpec) -> None:
        """Raise PublishError unless the token may read the configuration of the new container.

        The API refuses a creation for lack of any other privilege, but without VM.Audit it makes
        the container first.  VM.Config.Options is needed to write the description, to read a
        configuration with variables, and to set the variables and the entrypoint.
        """
        if self._client.is_local:
            return
        needed = ("VM.Audit", "VM.Config.Options")
        pool = request.pool or self._access.pool
        vms = f"/vms/{request.vmid}" if request.vmid else "/vms"
        for path in [*([f"/pool/{pool}"] if pool else []), vms]:
            lacking = self._client.lacking([Duty("create", path, needed)])
            if not lacking:
                return
        ((duty, missing),) = lacking
        raise PublishError(
            f"the token may not read the configuration of the container that it would make: "
            f"{', '.join(missing)} on {duty.path} is missing",
            self._client.granting(f"/pool/{pool}" if pool else "/vms", missing),
        )

    def _begin(
        self, request: ContainerSpec, node: str, params: Mapping[str, object], origin: Origin
    ) -> tuple[int, str]:
        """Start the creation; return the VMID, the next free one unless requested, and the UPID."""
        for _ in range(_VMIDS):
            vmid = request.vmid or self._client.get("cluster/nextid", int)
            try:
                return vmid, self._client.post(f"nodes/{node}/lxc", vmid=vmid, **params)
            except ConnectionLostError as exc:
                return vmid, self._begun(exc, node, vmid, origin)
            except DeniedError as exc:
                raise self._denied(exc, request, params) from exc
            except PublishError as exc:
                if not _TAKEN.search(exc.what):
                    raise
                if request.vmid:
                    raise PublishError(exc.what, "ask for another VMID, or for none") from exc
        raise TargetUnavailableError(
            f"{_VMIDS} VMIDs in turn were taken by others on target {self._access.name!r}"
        )

    def _denied(
        self, denied: DeniedError, request: ContainerSpec, params: Mapping[str, object]
    ) -> DeniedError:
        """Return the refusal with what the token lacks, which the API need not tell."""
        if denied.hint:
            return denied
        lines = {key: options_of(str(line)) for key, line in params.items() if key[-1:].isdigit()}
        duties = container_duties(
            [_storage_of(str(params["rootfs"])), *map(_storage_of, request.mounts.values())],
            [line["bridge"] for line in lines.values() if "bridge" in line],
            request.pool or self._access.pool,
            unprivileged=request.unprivileged,
        )
        for duty, missing in self._client.lacking(duties):
            return DeniedError(
                f"{denied.what}: {', '.join(missing)} on {duty.path} is missing",
                self._client.granting(duty.path, missing),
            )
        return denied

    def _begun(self, lost: ConnectionLostError, node: str, vmid: int, origin: Origin) -> str:
        """Return the UPID of a creation whose connection was lost.

        Raise TargetUnavailableError when the creation left no container with our mark.
        """
        for _ in range(_TASK_ATTEMPTS):
            if self._is_marked(node, vmid, origin):
                for upid in tasks.own(self._client, _TASK, [node]):  # the newest first
                    # UPID:node:pid:pstart:starttime:type:id:user:
                    if upid.split(":")[6] == str(vmid):
                        return upid
            time.sleep(_TASK_PAUSE)
        raise TargetUnavailableError(
            f"the creation of container {vmid} on {node} broke off and left no container: "
            f"{lost.what}",
            f"see whether {node} has container {vmid} before you ask for it again",
        ) from lost

    def _is_marked(self, node: str, vmid: int, origin: Origin) -> bool:
        """Tell whether a container is there and answers our request.

        Proxmox VE writes a configuration, locked, before it answers a creation with a task.
        """
        try:
            config = self._client.get(f"nodes/{node}/lxc/{vmid}/config", ContainerConfig)
        except PublishError:
            return False
        return Origin.parse(config.get("description", "")) == origin

    def _followed(self, node: str, vmid: int, upid: str, advance: Advance) -> str:
        """Return how the task of a creation ended; raise TargetUnavailableError if nobody tells."""
        try:
            return tasks.follow(self._client, upid, advance)
        except (PublishError, StoppedError) as exc:
            raise TargetUnavailableError(
                f"container {vmid} is being made on {node}, but how that ends is not known: "
                f"{exc.what}",
                "Proxmox VE goes on with it: look there before you ask again",
            ) from exc

    def _config(self, node: str, vmid: int, warnings: list[str]) -> ContainerConfig:
        """Return a container's configuration; empty, with a warning, if it cannot be read."""
        try:
            return self._client.get(f"nodes/{node}/lxc/{vmid}/config", ContainerConfig)
        except PublishError as exc:
            warnings.append(
                f"container {vmid} was made on {node}, but its configuration cannot be read: {exc}"
            )
        return {}

    def _change(
        self, node: str, vmid: int, changes: Mapping[str, object], warnings: list[str]
    ) -> bool:
        """Change the configuration and return whether that succeeded; a failure is a warning."""
        if not changes:
            return True
        try:
            self._client.put(f"nodes/{node}/lxc/{vmid}/config", **changes)
        except PublishError as exc:
            warnings.append(
                f"container {vmid} was made on {node}, but {' and '.join(changes)} could not be "
                f"set, so it was not started: {exc}"
            )
            return False
        return True

    def _remove(self, node: str, vmid: int, origin: Origin) -> str:
        """Remove an incomplete container; return a message when it stays, else nothing."""
        if not self._is_marked(node, vmid, origin):
            return ""
        try:
            upid = self._client.delete(f"nodes/{node}/lxc/{vmid}")
            result = tasks.follow(self._client, upid, lambda _: None) if upid else tasks.OK
        except PublishError as exc:
            result = str(exc)
        if result == tasks.OK:
            return ""
        return f"; it was left half-made ({result}): pct unlock {vmid} && pct destroy {vmid}"

    def _start(self, node: str, vmid: int, warnings: list[str], advance: Advance) -> bool:
        """Start the container and return whether it started; a failure becomes a warning."""
        try:
            upid = self._client.post(f"nodes/{node}/lxc/{vmid}/status/start")
            exitstatus = tasks.follow(self._client, upid, advance)
            if exitstatus == tasks.OK or exitstatus.startswith(tasks.WARNINGS):
                return True
            failure = f"{exitstatus}: {tasks.log_end(self._client, upid)}"
        except (PublishError, StoppedError) as exc:
            failure = str(exc)
        warnings.append(f"the container is there but did not start: {failure}")
        return False


def _storage_of(line: str) -> str:
    """Return the storage of a line like local-zfs:8,mp=/srv; empty for a path."""
    return "" if line.startswith("/") else line.partition(":")[0]
