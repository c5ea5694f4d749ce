"""The directory target: a plain folder laid out as a PVE `dir` storage.

A file that appears in `template/cache` by rename is listed by PVE at once; no registration is
needed.  The embedded default, and the way to feed a storage that is mounted here.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from syncd.belonging import make_folder
from syncd.errors import PublishError, StorageError
from syncd.job import Progress
from syncd.placing import place
from syncd.reference import Digest
from syncd.settings import DirectoryTargetSettings
from syncd.template import Finding, Format, Volume, volume_id

_ENDINGS = (".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2")


class DirectoryTarget:
    """Publishes into one folder.  Its volume ids use the target's name as storage."""

    def __init__(self, settings: DirectoryTargetSettings) -> None:
        self.name = settings.name
        self._folder = settings.path / "template" / "cache"

    def format(self) -> Format:
        """Return `rootfs`: every PVE can create a container from it."""
        return Format.ROOTFS

    def volumes(self) -> list[Volume]:
        """Return what PVE would list: no dot files, only its endings."""
        found: list[Volume] = []
        try:
            for file in self._folder.iterdir():
                # A file may go while we look, and then it is not listed.
                with suppress(FileNotFoundError):
                    kind = file.stat()
                    listed = file.name.endswith(_ENDINGS) and not file.name.startswith(".")
                    if listed and stat.S_ISREG(kind.st_mode):
                        found.append(Volume(volume_id(self.name, file.name), kind.st_size))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise PublishError(f"{self._folder} cannot be listed: {exc.strerror}") from exc
        return found

    def missing(self, name: str, size: int | None) -> list[str]:
        """Return the target's own name if it lacks the file, else nothing."""
        file = self.local(name)
        there = file is not None and size in (None, file.stat().st_size)
        return [] if there else [self.name]

    def local(self, name: str) -> Path | None:
        """Return the path of a published file."""
        file = self._folder / name
        return file if file.is_file() else None

    def publish(
        self,
        file: Path,
        name: str,
        digest: Digest,  # noqa: ARG002 - linked or copied in one go, nothing could change it
        progress: Progress,
    ) -> list[Volume]:
        """Ensure that the folder holds `file` as `name`; nothing is copied on one file system."""
        advance = progress.begin("publish", name, file.stat().st_size)
        try:
            make_folder(self._folder)
            place(file, self._folder, name)
        except StorageError as exc:
            raise PublishError(exc.what, exc.hint) from exc
        except OSError as exc:
            raise PublishError(
                f"{self._folder} cannot be made: {exc.strerror}",
                f"check the path and permissions of [[target]] {self.name!r}",
            ) from exc
        advance(file.stat().st_size)
        return [Volume(volume_id(self.name, name), file.stat().st_size)]

    def delete(self, volume: Volume) -> None:
        """Ensure that the file is gone."""
        try:
            (self._folder / volume.name).unlink(missing_ok=True)
        except OSError as exc:
            raise PublishError(f"{volume.volid} cannot be deleted: {exc.strerror}") from exc

    def check(self) -> list[Finding]:
        """Tell whether templates can be written here, by writing one empty file."""
        probe = self._folder / f".syncd-check.{os.getpid()}"
        try:
            make_folder(self._folder)
            probe.touch()
            probe.unlink()
            free = os.statvfs(self._folder)
        except OSError as exc:
            return [
                Finding(
                    False,
                    f"target {self.name}",
                    f"{self._folder} cannot be written: {exc.strerror}",
                )
            ]
        gigabytes = free.f_bavail * free.f_frsize / 1e9
        return [Finding(True, f"target {self.name}", f"{self._folder} has {gigabytes:.1f} GB free")]
