"""Whether a folder that has been there still is: a disk that is not mounted is a failure.

A folder that vanished is not made anew: what is written then fills the disk below the mount point,
and hides again once the disk is mounted.  So the state of syncd remembers each folder that was
seen.  The same check, from the configuration alone, is Proxmox VE's `is_mountpoint` of a `dir`
storage (pvesm(1)).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from syncd.errors import StorageError, TargetUnavailableError
from syncd.files import atomic_write, make_folder


class Landmark:
    """One target's folder.  Safe to use from several threads.

    `marker` is the file that remembers the folder; None remembers nothing.  `mountpoint` is the
    folder that has to be a mount point, or None.
    """

    def __init__(
        self, target: str, folder: Path, *, marker: Path | None, mountpoint: Path | None
    ) -> None:
        self._target = target
        self._folder = folder
        self._marker = marker
        self._mountpoint = mountpoint
        self._seen = False

    def check(self) -> None:
        """Raise TargetUnavailableError when the folder's disk is not mounted, as far as is known.

        A folder that is there is remembered from now on.
        """
        # A sandbox of systemd may mount a folder onto itself: that has the device of its parent,
        # and is no mount point for os.path.ismount, though one for /proc/self/mountinfo.
        if self._mountpoint is not None and not os.path.ismount(self._mountpoint):
            raise TargetUnavailableError(
                f"{self._mountpoint} is not mounted",
                f"mount it; is_mountpoint of [[target]] {self._target!r} asks for that",
            )
        if self._folder.is_dir():
            self._remember()
        elif self._remembered():
            raise TargetUnavailableError(
                f"{self._folder} is not there any more",
                "mount its disk; if it was removed on purpose, create the folder",
            )

    def _remembered(self) -> bool:
        if self._marker is None:
            return False
        try:
            return self._marker.read_bytes() == os.fsencode(self._folder)
        except OSError:
            return False

    def _remember(self) -> None:
        if self._seen or self._marker is None or self._remembered():
            return
        with suppress(OSError, StorageError):  # another look remembers it
            make_folder(self._marker.parent)
            with atomic_write(self._marker) as file:
                file.write(os.fsencode(self._folder))
            self._seen = True
