"""The target for a Proxmox VE cluster: templates in one of its storages.

A template is present in a place when the place lists it with its full size, after the task of the
upload has ended with OK or after this host has written it whole.  No file is ever overwritten.
Every method blocks, and several threads may call them at a time.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from syncd.errors import NoRoomError, PublishError, WrongFileError, joined
from syncd.files import require_room
from syncd.formats import Format
from syncd.oci import Digest
from syncd.progress import Advance, Progress
from syncd.targets.beside import ATTESTATIONS, remove_beside, write_beside
from syncd.targets.container import Container, ContainerSpec, FoundContainer
from syncd.targets.naming import volume_id
from syncd.targets.proxmox import tasks
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.check import check_cluster
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.containers import Containers
from syncd.targets.proxmox.inventory import guests
from syncd.targets.proxmox.lock import sole_writer
from syncd.targets.proxmox.mounted import MountedStorages
from syncd.targets.proxmox.root_swapper import RootSwapper
from syncd.targets.proxmox.storages import LISTINGS, Place, Storages
from syncd.targets.proxmox.upload import Uploader
from syncd.targets.record import RECORD, TemplateRecord, read_record, write_record
from syncd.targets.target import CheckResult, PublishedImage, Space, Volume

log = structlog.stdlib.get_logger()

OCI_SINCE = (9, 1)
"""The first version whose `pct create` reads OCI archives."""
PLACES_AT_A_TIME = 4
_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]+\.tar(\.(gz|xz|zst|bz2))?")
_NAME_MAX = 255
_VOLUME_ID_MAX = 255
"""Characters of a volume id: the bound of `ostemplate` in `POST /nodes/{node}/lxc`."""


class ProxmoxTarget:
    """Publishes into one storage of a cluster; `locks` is the folder of the target's locks."""

    def __init__(self, access: ClusterAccess, locks: Path) -> None:
        self.name = access.name
        self._access = access
        self._locks = locks
        self._client = Client(access)
        self._storages = Storages(self._client, access)
        self._uploader = Uploader(self._client, self._storages)
        self._mounted = MountedStorages(self._client, self._storages, access)
        self._containers = Containers(self._client, self._storages, access)
        self._roots = RootSwapper(self._client, access)

    def format(self) -> Format:
        """Return `oci` where Proxmox VE reads it, since the web UI looks for its file name."""
        return Format.OCI if self._client.version() >= OCI_SINCE else Format.ROOTFS

    def volumes(self) -> list[Volume]:
        """Return every template of the storage, once for each place that lists it."""
        places = self._storages.places()
        return [volume for place in places for volume in self._storages.listed(place)]

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the online places that do not list this file, or list it with another size.

        A place on an offline node is not among them, since nothing can be done about it now.  When
        the node is online again and lacks the file, the next sweep publishes the file there.
        """
        return [
            place.label
            for place in self._reachable()
            if not any(
                volume.name == name and size in (None, volume.size)
                for volume in self._storages.listed(place)
            )
        ]

    def local(self, name: str) -> Path | None:
        """Return the path of a published file where this host writes the storage, else None."""
        files = (folder / name for folder in self._mounted.folders())
        return next((file for file in files if file.is_file()), None)

    def publish(self, file: Path, name: str, digest: Digest, progress: Progress) -> list[Volume]:
        """Ensure that `file` is listed as `name` in every online place; return the volumes.

        A shared storage is written once.  Of a storage that is not shared, each online node is
        written, `PLACES_AT_A_TIME` at a time.  When a place fails, the other places are finished
        first.  Raise WrongFileError when a place has another file of this name, PublishError when
        a place refuses, TargetUnavailableError when no place could be reached; every place that
        failed is named.
        """
        check_name(name)
        places = self._reachable()
        for place in places:
            _check_volume_id(place.storage, name)

        def bring(place: Place) -> Volume:
            return self._bring(place, file, name, digest, progress)

        with ThreadPoolExecutor(PLACES_AT_A_TIME, thread_name_prefix="publish") as pool:
            running = {place.label: pool.submit(bring, place) for place in places}
        volumes: list[Volume] = []
        failures: dict[str, PublishError] = {}
        for label, future in running.items():
            failure = future.exception()
            if failure is None:
                volumes.append(future.result())
            elif isinstance(failure, PublishError):
                failures[label] = failure
            else:
                raise failure
        if failures:
            whole = joined(list(failures.values()))
            wrong = [exc for exc in failures.values() if isinstance(exc, WrongFileError)]
            if wrong:
                volumes_of = [volume for exc in wrong for volume in exc.volumes]
                whole = WrongFileError(whole.what, whole.hint, volumes_of)
            if not whole.temporary or not volumes:
                raise whole from next(iter(failures.values()))
        for label, failure in failures.items():
            log.warning("not published yet", place=label, template=name, error=str(failure))
        return volumes

    def put_record(self, record: TemplateRecord) -> None:
        """Ensure that a template's record lies beside it where this host writes the storage.

        Raise PublishError when a folder refuses.
        """
        for folder in self._mounted.folders() if self._access.records else []:
            write_record(folder, record)

    def record(self, name: str) -> TemplateRecord | None:
        """Return the record beside a template where this host writes the storage, or None."""
        file = self.local(name) if self._access.records else None
        return None if file is None else read_record(file.parent, name)

    def remove_part(self, name: str) -> bool:
        """Ensure that no dead copy of `name` is left where this host writes the storage.

        An upload leaves nothing: Proxmox VE gives the file its name, and removes what broke off.
        """
        places = self._storages.places() if self._mounted.configured else []
        removed = [self._mounted.remove_part(place, name) for place in places]
        return any(removed)

    def require_room(self, name: str, size: int) -> None:
        """Raise NoRoomError when no online place has the file, and none has room for it.

        An upload needs the size twice where the node spools it on the storage's disk.
        """
        failures = []
        places = self._reachable()
        for place in places:
            try:
                if self._mounted.writes(place):
                    require_room(place.free, size, self._access.reserve, place.label)
                else:
                    self._uploader.require_room(place, size, self._access.reserve)
            except NoRoomError as exc:
                failures.append(exc)
            else:
                return
        listed = (volume for place in places for volume in self._storages.listed(place))
        if not any(volume.name == name for volume in listed):
            raise failures[0]

    def space(self) -> list[Space]:
        """Return the space of the storage in each online place."""
        return [Space(p.label, p.free, p.total) for p in self._storages.places()]

    def delete(self, volume: Volume) -> None:
        """Ensure that this volume does not exist.

        Raise PublishError when the token may not delete it, or when the task fails.
        """
        storage = volume.volid.partition(":")[0]
        node = volume.node or self._storages.places()[0].node
        self._remove_beside(volume)
        upid = self._client.delete(f"nodes/{node}/storage/{storage}/content/{volume.volid}")
        if upid is None:
            return
        exitstatus = tasks.follow(self._client, upid, lambda _: None, LISTINGS)
        if exitstatus != tasks.OK:
            raise PublishError(
                f"{volume.volid} on {node} cannot be deleted: {exitstatus}",
                f"its task's log ends: {tasks.log_end(self._client, upid)}",
            )

    def put_beside(self, name: str, content: bytes) -> bool:
        """Ensure that a file lies beside the template wherever this host writes the storage.

        Proxmox VE takes no upload of such a file.
        """
        check_name(name)
        folders = [p for p in self._reachable() if self._mounted.writes(p)]
        for place in folders:
            write_beside(self._mounted.usable(place), name, ATTESTATIONS, content)
        return bool(folders)

    def _remove_beside(self, volume: Volume) -> None:
        for folder in self._mounted.folders(volume.node):
            remove_beside(folder, volume.name, ATTESTATIONS)
            if self._access.records:
                remove_beside(folder, volume.name, RECORD)

    def create(
        self,
        request: ContainerSpec,
        image: PublishedImage,
        progress: Progress,
        *,
        again: bool = False,
    ) -> Container:
        """Create a container from a published image; see `Containers.create`."""

        def begin() -> Advance:
            return progress.begin("create", request.hostname, None)

        if again:
            return self._containers.create_again(request, image, begin)
        return self._containers.create(request, image, begin)

    def machines(self) -> dict[str, str]:
        """Return the hardware of each online node; see `Storages.machines`."""
        return self._storages.machines()

    @property
    def roots(self) -> RootSwapper:
        """The steps by which a container of the cluster gets a new root."""
        return self._roots

    def containers(self, among: Collection[int] | None = None) -> list[FoundContainer]:
        """Return the containers of some VMIDs, or all; see `inventory.guests`."""
        return guests(self._client, among)

    def check(self) -> list[CheckResult]:
        """Return version, nodes, storages and space, and what the token lacks for each duty."""
        return check_cluster(
            self._access, self._client, self._storages, self._uploader, self._mounted
        )

    def _reachable(self) -> list[Place]:
        """Return the places that this host can write; raise PublishError when it can write none.

        With an upload every place can be written.  Since pvesh takes no upload, root on a host
        writes only storages that are mounted there.
        """
        places = self._storages.places()
        if not self._client.is_local:
            return places
        mounted = [place for place in places if self._mounted.of(place) is not None]
        if not mounted:
            raise PublishError(
                f"{places[0].label} cannot be written from here: pvesh takes no uploads",
                "configure endpoints and a token to reach other nodes",
            )
        return mounted

    def _bring(
        self, place: Place, file: Path, name: str, digest: Digest, progress: Progress
    ) -> Volume:
        storage = place.storage
        advance = progress.begin("publish", f"{name} to {place.label}", file.stat().st_size)
        with sole_writer(self._locks, f"{place.owner or ''}/{storage}", name, advance):
            if self._mounted.writes(place):
                return self._mounted.put(place, file, name, advance)
            return self._uploader.upload(place, file, name, digest, advance)


def _check_volume_id(storage: str, name: str) -> None:
    """Raise PublishError for a template from which no container could be made."""
    volid = volume_id(storage, name)
    if len(volid) > _VOLUME_ID_MAX:
        raise PublishError(
            f"the volume id {volid} has {len(volid)} characters, and Proxmox VE takes at most "
            f"{_VOLUME_ID_MAX} of a template",
            "configure a shorter name pattern",
        )


def check_name(name: str) -> None:
    """Raise PublishError unless Proxmox VE lists a template under exactly this name.

    Proxmox VE turns other characters into `_`, and never lists a file with a dot in front.
    """
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name):
        raise PublishError(
            f"{name!r:.300} is not a name that Proxmox VE keeps for a template",
            f"use at most {_NAME_MAX} of A-Z a-z 0-9 _ . - and a known ending, no dot first",
        )
