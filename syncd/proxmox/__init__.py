"""The proxmox target: templates in a storage of a Proxmox VE cluster.

The only door to proxmoxer.  Everything here is blocking and safe to use from several threads.
A template is present in a place when the place lists it with the right size after a task that
ended with OK, or when it was put there whole by this host; nothing is ever overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from syncd.container import Container, ContainerRequest, Startup
from syncd.errors import PublishError
from syncd.job import Progress
from syncd.proxmox import tasks
from syncd.proxmox.checkup import examine
from syncd.proxmox.client import Client
from syncd.proxmox.containers import Containers
from syncd.proxmox.folder import Folders
from syncd.proxmox.lock import sole_writer
from syncd.proxmox.placement import Place, Placement
from syncd.proxmox.upload import Uploads
from syncd.reference import Digest
from syncd.settings import ProxmoxTargetSettings
from syncd.template import Finding, Format, Volume

log = structlog.stdlib.get_logger()

OCI_SINCE = (9, 1)
"""The first version whose `pct create` reads OCI archives."""
PLACES_AT_A_TIME = 4
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]+\.tar(\.(gz|xz|zst|bz2))?")
_NAME_MAX = 255


class ProxmoxTarget:
    """Publishes into one storage of a cluster.  `state` is a folder for locks."""

    def __init__(self, settings: ProxmoxTargetSettings, state: Path) -> None:
        self.name = settings.name
        self._settings = settings
        self._state = state
        self._client = Client(settings)
        self._placement = Placement(self._client, settings)
        self._uploads = Uploads(self._client, self._placement, settings.token_id)
        self._folders = Folders(self._client, self._placement, settings)
        self._containers = Containers(self._client, self._placement, settings)

    def format(self) -> Format:
        """Return `oci` where Proxmox VE can read it, since the web UI asks for its name."""
        return Format.OCI if self._client.version() >= OCI_SINCE else Format.ROOTFS

    def volumes(self) -> list[Volume]:
        """Return every template of the storage, those on a storage that is not shared by node."""
        return [one for place in self._placement.places() for one in self._placement.listed(place)]

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the online places that do not list this file, or list it with another size.

        A node that is offline is not among them: nothing can be done about it now.  Once it is
        back it is, if it lacks the file; so the next sweep makes it up.
        """
        return [
            place.label
            for place in self._reachable()
            if not any(
                one.name == name and size in (None, one.size)
                for one in self._placement.listed(place)
            )
        ]

    def local(self, name: str) -> Path | None:
        """Return where this host can read a published file: on storages it writes to itself."""
        if not self._folders.configured:
            return None
        for place in self._placement.places():
            folder = self._folders.of(place)
            if folder is not None and (folder / name).is_file():
                return folder / name
        return None

    def publish(self, file: Path, name: str, digest: Digest, progress: Progress) -> list[Volume]:
        """Ensure that `file` is listed as `name` in every online place; return where it is.

        A shared storage is written once; else every online node that has the storage, a few at a
        time.  When some places fail the others are finished first.  Raise PublishError when one
        refuses, TargetUnavailableError when none could be reached.
        """
        check_name(name)
        places = self._reachable()

        def bring(place: Place) -> Volume:
            return self._bring(place, file, name, digest, progress)

        with ThreadPoolExecutor(PLACES_AT_A_TIME, thread_name_prefix="publish") as pool:
            running = {place.label: pool.submit(bring, place) for place in places}
        volumes, failures = [], {}
        for label, future in running.items():
            failure = future.exception()
            if failure is None:
                volumes.append(future.result())
            elif isinstance(failure, PublishError):
                failures[label] = failure
            else:
                raise failure
        lasting = [failure for failure in failures.values() if not failure.temporary]
        if lasting or (failures and not volumes):
            raise (lasting or list(failures.values()))[0]
        for label, failure in failures.items():
            log.warning("not published yet", place=label, template=name, error=str(failure))
        return volumes

    def delete(self, volume: Volume) -> None:
        """Ensure that this volume is gone; raise PublishError when the token may not delete."""
        storage = volume.volid.partition(":")[0]
        node = volume.node or self._placement.places()[0].node
        upid = self._client.delete(f"nodes/{node}/storage/{storage}/content/{volume.volid}")
        if upid is None:
            return
        exitstatus = tasks.follow(self._client, upid, lambda _: None)
        if exitstatus != tasks.OK:
            raise PublishError(
                f"{volume.volid} on {node} cannot be deleted: {exitstatus}",
                f"its task's log ends: {tasks.log_end(self._client, upid)}",
            )

    def create(
        self,
        request: ContainerRequest,
        volumes: Sequence[Volume],
        form: Format,
        startup: Startup,
        progress: Progress,
    ) -> Container:
        """Make a container from a published template; see `Containers.create`."""
        advance = progress.begin("create", request.hostname, None)
        return self._containers.create(request, volumes, form, startup, advance)

    def check(self) -> list[Finding]:
        """Tell version, nodes, storages, space, and what the token lacks for each duty."""
        return examine(self._settings, self._client, self._placement, self._uploads, self._folders)

    def _reachable(self) -> list[Place]:
        """Return the places that can be written from here; raise PublishError if there is none.

        All by upload; but pvesh takes none, so root on a host writes what is mounted there.
        """
        places = self._placement.places()
        if not self._client.is_local:
            return places
        here = [place for place in places if self._folders.of(place) is not None]
        if not here:
            raise PublishError(
                f"{places[0].label} cannot be written from here: pvesh takes no uploads",
                "configure endpoints and a token to reach other nodes",
            )
        return here

    def _bring(
        self, place: Place, file: Path, name: str, digest: Digest, progress: Progress
    ) -> Volume:
        storage = place.storage.name
        advance = progress.begin("publish", f"{name} to {place.label}", file.stat().st_size)
        with sole_writer(self._state, f"{place.owner or ''}/{storage}", name, advance):
            if self._folders.configured and self._folders.of(place) is not None:
                return self._folders.put(place, file, name, advance)
            return self._uploads.upload(place, file, name, digest, advance)


def check_name(name: str) -> None:
    """Raise PublishError unless Proxmox VE would list a template under this very name.

    It turns every other character into `_` and never lists dot files.
    """
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise PublishError(
            f"{name!r:.300} is not a name that Proxmox VE keeps for a template",
            f"use at most {_NAME_MAX} of A-Z a-z 0-9 _ . - and a known ending, no dot first",
        )
