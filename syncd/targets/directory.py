"""The directory target: a plain folder with the layout of a Proxmox VE `dir` storage.

Proxmox VE lists a file as soon as the file is renamed into `template/cache`; nothing has to be
registered.  This target needs no Proxmox VE, and it fills a storage that is mounted on this host.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from syncd.errors import (
    OccupiedNameError,
    PublishError,
    StorageError,
    TargetUnavailableError,
    WrongFileError,
)
from syncd.files import free_and_total, make_folder, publish_file, remove_part, require_free
from syncd.formats import Format
from syncd.oci import Digest
from syncd.progress import Progress
from syncd.targets.beside import ATTESTATIONS, remove_beside, write_beside
from syncd.targets.landmark import Landmark
from syncd.targets.naming import volume_id
from syncd.targets.record import RECORD, TemplateRecord, read_record, write_record
from syncd.targets.target import CheckResult, Space, Volume

_ENDINGS = (".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2")


class DirectoryTarget:
    """Publishes into one folder; in volume ids the target's name stands for the storage.

    `marker` is a file that remembers that the folder has been there, and `mountpoint` the folder
    that has to be a mount point, or None.  `reserve` bytes of its file system stay free.  With
    `records`, each template has a record beside it; see `record`.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        marker: Path | None = None,
        mountpoint: Path | None = None,
        reserve: int = 0,
        records: bool = False,
    ) -> None:
        self.name = name
        self._records = records
        self._reserve = reserve
        self._folder = path / "template" / "cache"
        self._landmark = Landmark(name, self._folder, marker=marker, mountpoint=mountpoint)

    def format(self) -> Format:
        """Return `rootfs`, from which every version of Proxmox VE creates containers."""
        return Format.ROOTFS

    def volumes(self) -> list[Volume]:
        """Return the files that Proxmox VE would list as templates.

        Those have one of its endings and no dot in front.  Raise PublishError when the folder
        cannot be read, TargetUnavailableError when it vanished; a folder that never existed has no
        templates.
        """
        self._landmark.check()
        volumes: list[Volume] = []
        try:
            for file in self._folder.iterdir():
                with suppress(FileNotFoundError):  # the file was deleted since it was listed
                    status = file.stat()
                    listed = file.name.endswith(_ENDINGS) and not file.name.startswith(".")
                    if listed and stat.S_ISREG(status.st_mode):
                        volumes.append(Volume(volume_id(self.name, file.name), status.st_size))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise PublishError(
                f"{self._folder} cannot be listed: {exc.strerror}",
                f"check the path and permissions of [[target]] {self.name!r}",
            ) from exc
        return volumes

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the target's own name if the folder lacks the file, else nothing.

        Raise TargetUnavailableError when the folder vanished.
        """
        self._landmark.check()
        file = self.local(name)
        present = file is not None and size in (None, file.stat().st_size)
        return [] if present else [self.name]

    def local(self, name: str) -> Path | None:
        """Return the path of a published file, or None when the folder lacks it."""
        file = self._folder / name
        return file if file.is_file() else None

    def publish(
        self,
        file: Path,
        name: str,
        digest: Digest,  # noqa: ARG002 - a copy within one host cannot change the content
        progress: Progress,
    ) -> list[Volume]:
        """Ensure that the folder holds `file` as `name`; return the one volume.

        The copy shares its blocks where the file system can.  Raise WrongFileError when another
        file has the name, TargetUnavailableError while somebody else writes the file and when the
        folder vanished, which then is not made anew, PublishError when the folder cannot be
        written.
        """
        self._landmark.check()
        advance = progress.begin("publish", name, file.stat().st_size)

        def pause(seconds: float) -> None:
            advance(0)
            time.sleep(seconds)

        try:
            make_folder(self._folder)
            publish_file(file, self._folder, name, pause)
            self._landmark.check()
        except OccupiedNameError as exc:
            volid = volume_id(self.name, name)
            raise WrongFileError(exc.what, exc.hint, [(volid, None)]) from exc
        except StorageError as exc:
            failure = TargetUnavailableError if exc.temporary else PublishError
            raise failure(exc.what, exc.hint) from exc
        except OSError as exc:
            raise PublishError(
                f"{self._folder} cannot be made: {exc.strerror}",
                f"check the path and permissions of [[target]] {self.name!r}",
            ) from exc
        advance(file.stat().st_size)
        return [Volume(volume_id(self.name, name), file.stat().st_size)]

    def put_record(self, record: TemplateRecord) -> None:
        """Ensure that a template's record lies beside it, if there are to be records."""
        if self._records:
            self._landmark.check()
            write_record(self._folder, record)

    def record(self, name: str) -> TemplateRecord | None:
        """Return the record beside a template, or None; raise PublishError for another file."""
        return read_record(self._folder, name) if self._records else None

    def remove_part(self, name: str) -> bool:
        """Ensure that no dead copy of `name` is left; return whether there was one."""
        try:
            return remove_part(self._folder, name)
        except StorageError as exc:
            raise PublishError(exc.what, exc.hint) from exc

    def require_room(self, name: str, size: int) -> None:  # noqa: ARG002 - one place, which lacks it
        """Raise NoRoomError unless `size` bytes fit into the folder beside the reserve."""
        self._landmark.check()
        try:
            require_free(self._folder, size, self._reserve, f"target {self.name} ({self._folder})")
        except OSError as exc:
            raise PublishError(f"{self._folder} cannot be looked at: {exc.strerror}") from exc

    def space(self) -> list[Space]:
        """Return the space of the folder; raise as `require_room`."""
        self._landmark.check()
        try:
            return [Space(self.name, *free_and_total(self._folder))]
        except OSError as exc:
            raise PublishError(f"{self._folder} cannot be looked at: {exc.strerror}") from exc

    def delete(self, volume: Volume) -> None:
        """Ensure that the file does not exist; raise PublishError when it cannot be deleted."""
        self._landmark.check()
        try:
            (self._folder / volume.name).unlink(missing_ok=True)
        except OSError as exc:
            raise PublishError(f"{volume.volid} cannot be deleted: {exc.strerror}") from exc
        if self._records:
            remove_beside(self._folder, volume.name, RECORD)
        remove_beside(self._folder, volume.name, ATTESTATIONS)

    def put_beside(self, name: str, content: bytes) -> bool:
        """Ensure that a file with the content lies beside the template `name`; return True."""
        self._landmark.check()
        try:
            make_folder(self._folder)
        except OSError as exc:
            raise PublishError(f"{self._folder} cannot be made: {exc.strerror}") from exc
        write_beside(self._folder, name, ATTESTATIONS, content)
        return True

    def check(self) -> list[CheckResult]:
        """Return whether templates can be written: an empty file is created and deleted."""
        try:
            self._landmark.check()
        except PublishError as exc:
            return [CheckResult(False, f"target {self.name}", str(exc))]
        probe = self._folder / f".syncd-check.{os.getpid()}"
        try:
            make_folder(self._folder)
            probe.touch()
            probe.unlink()
            space = os.statvfs(self._folder)
        except OSError as exc:
            return [
                CheckResult(
                    False,
                    f"target {self.name}",
                    f"{self._folder} cannot be written: {exc.strerror}",
                )
            ]
        free = space.f_bavail * space.f_frsize
        detail = f"{self._folder} has {free / 1e9:.1f} GB free"
        if free < self._reserve:
            detail += f", less than its reserve of {self._reserve / 1e9:.1f} GB"
        return [CheckResult(free >= self._reserve, f"target {self.name}", detail)]
