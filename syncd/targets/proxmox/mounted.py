"""Templates written into a storage's folder, where the storage is mounted on this host.

This is cheaper than an upload: nothing is spooled, and the copy shares its blocks where the file
system can.  Proxmox VE lists a file as soon as it is renamed into the folder.  Afterwards the
listing is checked, since a folder at the storage's path need not be the storage.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from syncd.errors import (
    OccupiedNameError,
    PublishError,
    StorageError,
    TargetUnavailableError,
    WrongFileError,
)
from syncd.files import publish_file, remove_part
from syncd.progress import Advance
from syncd.targets.naming import volume_id
from syncd.targets.proxmox.access import ClusterAccess
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.storages import LISTINGS, Place, Storage, Storages
from syncd.targets.target import Volume


class MountedStorages:
    """The folders of a target's storage that this host writes itself."""

    def __init__(self, client: Client, storages: Storages, access: ClusterAccess) -> None:
        self._client = client
        self._storages = storages
        self.configured = client.is_local or access.publish == "path"
        self._node = socket.gethostname().partition(".")[0]

    def writes(self, place: Place) -> bool:
        """Tell whether templates are written into the place's folder instead of uploaded."""
        return self.configured and self.of(place) is not None

    def of(self, place: Place) -> Path | None:
        """Return a place's folder if this host may write it; else None.

        The folder of a storage that is not shared is on the place's node only.
        """
        if not place.shared and place.node != self._node:
            return None
        return self._described(place).folder

    def put(self, place: Place, file: Path, name: str, advance: Advance) -> Volume:
        """Ensure that the place lists `file` as `name`; return the volume.

        Raise WrongFileError when another file has the name, PublishError when the folder cannot
        be written or is not the storage's folder, TargetUnavailableError while the storage is not
        mounted or somebody else writes the file.
        """
        folder = self.usable(place)
        size = file.stat().st_size
        existed = (folder / name).exists()

        def pause(seconds: float) -> None:
            advance(0)
            time.sleep(seconds)

        try:
            publish_file(file, folder, name, pause)
        except OccupiedNameError as exc:
            volid = volume_id(place.storage, name)
            raise WrongFileError(exc.what, exc.hint, [(volid, place.owner)]) from exc
        except StorageError as exc:
            failure = TargetUnavailableError if exc.temporary else PublishError
            raise failure(exc.what, exc.hint) from exc
        advance(size)
        self._client.forget(LISTINGS)
        volume = self._storages.volume(place, name)
        if volume is None or volume.size != size:
            if not existed:
                (folder / name).unlink(missing_ok=True)
            raise PublishError(
                f"{folder / name} was written, but {place.label} does not list it",
                "the folder is not the storage's: check what is mounted there, or upload instead "
                '(publish = "upload")',
            )
        return volume

    def folders(self, node: str | None = None) -> list[Path]:
        """Return the folders of templates that this host writes: all, or those of a node.

        Raise PublishError when the cluster cannot be asked.
        """
        places = self._storages.places() if self.configured else []
        found = [self.of(place) for place in places if node in (None, place.owner)]
        return [folder for folder in found if folder is not None]

    def remove_part(self, place: Place, name: str) -> bool:
        """Ensure that a place's folder has no dead copy of `name`; return whether it had one.

        Raise PublishError when the disk refuses.
        """
        folder = self.of(place)
        try:
            return folder is not None and remove_part(folder, name)
        except StorageError as exc:
            raise PublishError(exc.what, exc.hint) from exc

    def usable(self, place: Place) -> Path:
        """Return the place's folder, which is created where the storage's path exists.

        Raise PublishError when the folder cannot be written, TargetUnavailableError while the
        storage is not mounted.
        """
        storage = self._described(place)
        path, folder, mountpoint = storage.path, storage.folder, storage.mountpoint
        if path is None or folder is None:
            raise PublishError(f"storage {storage.name!r} has no path", "upload instead")
        if mountpoint is not None and not os.path.ismount(mountpoint):
            raise TargetUnavailableError(
                f"nothing is mounted at {mountpoint}, the path of storage {storage.name!r}",
                'mount it here, or upload instead (publish = "upload")',
            )
        if not path.is_dir():
            raise PublishError(
                f"{path}, the path of storage {storage.name!r}, is not on this host",
                'mount it here, or upload instead (publish = "upload")',
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise PublishError(
                f"{folder} cannot be made: {exc.strerror}", "check its permissions"
            ) from exc
        if not os.access(folder, os.W_OK):
            raise PublishError(f"{folder} cannot be written", "check its permissions")
        return folder

    def _described(self, place: Place) -> Storage:
        """Return what storage.cfg says of a place's storage, its path above all."""
        for storage in self._storages.visible():
            if storage.name == place.storage:
                return storage
        raise TargetUnavailableError(f"storage {place.storage!r} was removed just now")
