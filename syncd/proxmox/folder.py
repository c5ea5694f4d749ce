"""Templates put straight into a storage's folder, where that is mounted on this host.

Cheaper than an upload: nothing is spooled, and nothing is copied where a hard link will do.  A
file that appears by rename is listed by Proxmox VE at once; that it is, is looked up afterwards,
since a folder of the right name may be the wrong one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from syncd.errors import PublishError, StorageError, TargetUnavailableError
from syncd.job import Advance
from syncd.placing import place as place_file
from syncd.proxmox.client import Client
from syncd.proxmox.placement import Place, Placement
from syncd.settings import ProxmoxTargetSettings
from syncd.template import Volume


class Folders:
    """The folders of one target's storage that this host can write."""

    def __init__(
        self, client: Client, placement: Placement, settings: ProxmoxTargetSettings
    ) -> None:
        self._placement = placement
        self.configured = client.is_local or settings.publish == "path"
        self._node = socket.gethostname().partition(".")[0]

    def of(self, place: Place) -> Path | None:
        """Return a place's folder if it is this host's to write; else None.

        That of a storage that is not shared is only so on the node itself.
        """
        if not place.storage.shared and place.node != self._node:
            return None
        return place.storage.folder

    def put(self, place: Place, file: Path, name: str, advance: Advance) -> Volume:
        """Ensure that the place lists `file` as `name`; raise PublishError where it cannot."""
        folder = self.usable(place)
        size = file.stat().st_size
        was_there = (folder / name).exists()
        try:
            place_file(file, folder, name)
        except StorageError as exc:
            raise PublishError(exc.what, exc.hint) from exc
        advance(size)
        volume = self._placement.volume(place, name)
        if volume is None or volume.size != size:
            if not was_there:
                (folder / name).unlink(missing_ok=True)
            raise PublishError(
                f"{folder / name} was written, but {place.label} does not list it",
                "the folder is not the storage's: check what is mounted there, or upload instead "
                '(publish = "upload")',
            )
        return volume

    def usable(self, place: Place) -> Path:
        """Return the place's folder, made where only its last parts are missing.

        Raise PublishError, or TargetUnavailableError while it is not mounted.
        """
        storage = place.storage
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
