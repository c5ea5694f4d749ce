"""Uploads of templates through the API, and how each of them ended.

Proxmox VE refuses some uploads only after their body has arrived, and then leaves the spooled file
on the node for ever; so privileges and space are checked before an upload.  A template counts as
published when its task has ended with OK and the listing shows its full size: the listing alone
also shows a file that is still being written.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from syncd.errors import (
    ConnectionLostError,
    PublishError,
    StorageError,
    TargetUnavailableError,
    WrongFileError,
)
from syncd.files import require_room
from syncd.oci import Digest
from syncd.progress import Advance
from syncd.targets.proxmox import tasks
from syncd.targets.proxmox.answers import NodeStatus
from syncd.targets.proxmox.client import PERMISSIONS, Client
from syncd.targets.proxmox.privileges import storage_duties
from syncd.targets.proxmox.storages import LISTINGS, TEMPLATES, Place, Storages
from syncd.targets.target import Volume

_TASK = "imgcopy"
_GROWTH_PAUSE = 2.0  # seconds between two listings of a file that may be growing
_GROWTH_BOUND = 600.0  # seconds for which a growing file is waited for
_TASK_ATTEMPTS = 4  # searches for the task of an upload whose connection was lost
_TASK_PAUSE = 0.5  # seconds between two searches


class _Body(io.FileIO):
    """The file that is sent, under the template's name and with reports of progress.

    proxmoxer streams an `io.IOBase`, and takes the file name from its `name`.
    """

    def __init__(self, file: Path, name: str, advance: Advance) -> None:
        super().__init__(file, "rb")
        self.name = name
        self._advance = advance

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        self._advance(len(data))
        return data


class Uploader:
    """Uploads templates to the places of one target."""

    def __init__(self, client: Client, storages: Storages) -> None:
        self._client = client
        self._storages = storages

    def check(self, place: Place, size: int) -> None:
        """Raise PublishError when the place would not take a file of `size` bytes.

        The token needs its privileges, and the file needs space on the storage and where the
        endpoint spools the body.  An upload is not proxied, so the body is spooled in /var/tmp of
        the endpoint, whichever node the storage is on.  Without Sys.Audit the API does not tell
        the space there; then a storage that is not shared needs twice the space, since /var/tmp
        may be on the same disk.
        """
        duties = (duty for duty in storage_duties(place.storage) if duty.name != "delete")
        for duty, missing in self._client.lacking(duties):
            raise PublishError(
                f"the token may not {duty.name} on {place.label}: "
                f"{', '.join(missing)} on {duty.path} is missing",
                self._client.granting(duty.path, missing),
            )
        spool = self.spool(place.node)
        twice = not place.shared and (spool is None or spool[1] == place.total)
        needed = 2 * size if twice else size
        if place.free < needed:
            raise PublishError(
                f"{place.label} has {_gb(place.free)} free, an upload of {_gb(size)} needs "
                f"{_gb(needed)}" + (" (it is spooled on the same disk)" if twice else ""),
                "remove what is not needed any more, or set keep lower",
            )
        if spool is not None and spool[0] < size:
            raise PublishError(
                f"the node that takes the upload has {_gb(spool[0])} free under /var/tmp, where "
                f"{_gb(size)} are to be spooled",
                "make room on its root file system",
            )

    def require_room(self, place: Place, size: int, reserve: int) -> None:
        """Raise NoRoomError when the storage, or the disk of the spool, lacks room for an upload.

        See `check` for where the body is spooled.
        """
        spool = self.spool(place.node)
        twice = not place.shared and (spool is None or spool[1] == place.total)
        require_room(place.free, 2 * size if twice else size, reserve, place.label)
        if spool is not None:
            require_room(spool[0], size, reserve, f"the spool of {place.label}")

    def spool(self, node: str) -> tuple[int, int] | None:
        """Return the free and total bytes of the root file system where uploads for a node go.

        None where that is hidden from the token.
        """
        # That a spool is hidden is kept as well: Proxmox VE takes three seconds to say so.
        return self._client.memory.recall(("spool", (("node", node),)), lambda: self._spool(node))

    def _spool(self, node: str) -> tuple[int, int] | None:
        try:
            root = self._client.get_near(node, "nodes/localhost/status", NodeStatus)["rootfs"]
        except PublishError:
            return None
        return root["avail"], root["total"]

    def upload(
        self, place: Place, file: Path, name: str, digest: Digest, advance: Advance
    ) -> Volume:
        """Ensure that the place lists `file` as `name`; return the volume.

        Another file is never overwritten.  The caller holds the lock of the name.  Raise
        WrongFileError when another file has the name, PublishError when the place refuses,
        TargetUnavailableError when a later attempt may succeed, StorageError when `file` cannot
        be read.
        """
        size = file.stat().st_size
        known = self._uploads()
        present = self._settled(place, name, size, known, advance)
        if present is not None:
            return present
        self.check(place, size)
        try:
            with _Body(file, name, advance) as body:
                upid = self._client.post_near(
                    place.node,
                    f"nodes/{place.node}/storage/{place.storage}/upload",
                    # The parts have to come in this order.
                    **{
                        "content": TEMPLATES,
                        "checksum-algorithm": digest.algorithm,
                        "checksum": digest.encoded,
                        "filename": body,
                    },
                )
        except ConnectionLostError as exc:
            # Proxmox VE also drops the connection when it refuses a large body because of the
            # token or its privileges.  No retry helps then; the answers to small calls tell.
            self._client.forget(PERMISSIONS)
            self.check(place, size)
            upid = self._task_of_lost(exc, place, name, known, advance)
        except OSError as exc:
            raise StorageError(f"{file} cannot be read: {exc.strerror}") from exc
        self._follow(upid, place, name, advance)
        volume = self._storages.volume(place, name)
        if volume is None or volume.size != size:
            found = f"{volume.size} bytes" if volume else "nothing"
            raise PublishError(
                f"the upload of {name} to {place.label} ended well, but {found} is listed "
                f"where {size} bytes should be",
                "somebody else may write or delete there; see the log of the task "
                f"{upid} for what happened",
            )
        return volume

    def _settled(
        self, place: Place, name: str, size: int, seen: Mapping[str, bool], advance: Advance
    ) -> Volume | None:
        """Return the template if the place has it, None if not.

        If one of the uploads that were just seen writes it and still runs, wait for its end; wait
        for a file that grows, too, `_GROWTH_BOUND` seconds at most.

        Raise TargetUnavailableError when the file still grows then, WrongFileError when the file
        has another size.
        """
        ended = {upid for upid, running in seen.items() if not running}
        if upid := self._task_for(name, seen, ended, advance):
            tasks.follow(self._client, upid, advance, LISTINGS)
        volume = self._storages.volume(place, name)
        waited = 0.0
        while volume is not None and volume.size != size:
            advance(0)
            time.sleep(_GROWTH_PAUSE)
            waited += _GROWTH_PAUSE
            before, volume = volume, self._storages.volume(place, name)
            if volume == before:
                raise WrongFileError(
                    f"{volume.volid} is on {place.label} already with another size "
                    f"({volume.size} bytes, not {size})",
                    "syncd never overwrites; if it is a leftover of a failed copy, remove it: "
                    f"pvesm free {volume.volid}",
                    [(volume.volid, volume.node)],
                )
            if waited >= _GROWTH_BOUND:
                raise TargetUnavailableError(
                    f"{before.volid} on {place.label} is being written by somebody else"
                )
        return volume

    def _task_for(
        self,
        name: str,
        seen: Mapping[str, bool],
        known: Collection[str],
        advance: Advance,
    ) -> str | None:
        """Return the upload task of this file, of those just seen without `known`, or None.

        Only the log of a task tells which file the task writes, and only after a while.
        """
        while True:
            undecided = False
            for upid, running in seen.items():
                if upid in known:
                    continue
                target = self._target_of(upid)
                if target == name:
                    return upid
                undecided = undecided or (target is None and running)
            if not undecided:
                return None
            advance(0)
            time.sleep(_TASK_PAUSE)
            seen = self._uploads()

    def _uploads(self) -> dict[str, bool]:
        """Return the recent uploads of every node, each with whether the upload still runs.

        An upload is a task of the endpoint's node, whichever node the storage is on.
        """
        return tasks.own(self._client, _TASK, self._storages.answering())

    def _target_of(self, upid: str) -> str | None:
        """Return the name of the file that a task writes; None before its log tells the name.

        The name is empty for a task whose log the token may not read.
        """
        try:
            lines = tasks.log(self._client, upid)
        except PublishError:
            return ""
        targets = (line for line in lines if line.startswith("target file:"))
        return next((line.rpartition("/")[2] for line in targets), None)

    def _task_of_lost(
        self,
        lost: ConnectionLostError,
        place: Place,
        name: str,
        known: Collection[str],
        advance: Advance,
    ) -> str:
        """Return the task of an upload whose connection was lost.

        Raise TargetUnavailableError when the upload left no task.
        """
        for _ in range(_TASK_ATTEMPTS):
            upid = self._task_for(name, self._uploads(), known, advance)
            if upid is not None:
                return upid
            time.sleep(_TASK_PAUSE)
        raise TargetUnavailableError(
            f"the upload of {name} to {place.label} broke off and left no task: {lost.what}",
            "the token and its privileges are good; it is tried again later",
        ) from lost

    def _follow(self, upid: str, place: Place, name: str, advance: Advance) -> None:
        """Wait for the end of an upload's task; raise PublishError unless it ended with OK."""
        exitstatus = tasks.follow(self._client, upid, advance, LISTINGS)
        if exitstatus != tasks.OK:
            raise PublishError(
                f"the upload of {name} to {place.label} failed: {exitstatus}",
                f"its log ends: {tasks.log_end(self._client, upid)}",
            )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
