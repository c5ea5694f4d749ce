"""One template brought to one place by the API's upload, and what came of it found out.

Everything that Proxmox VE would only refuse after the body has arrived is looked at before:
such refusals leave the spooled file on the node for good.  A template counts as published when
its task ended with OK and the listing shows its size; a growing file is listed too.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection
from pathlib import Path

from syncd.errors import PublishError, StorageError, TargetUnavailableError
from syncd.job import Advance
from syncd.proxmox import tasks
from syncd.proxmox.client import BrokenOffError, Client
from syncd.proxmox.placement import TEMPLATES, Place, Placement
from syncd.proxmox.privileges import granting, storage_duties
from syncd.reference import Digest
from syncd.template import Volume

_TASK = "imgcopy"
_GLANCE = 2.0  # seconds between two looks at a file that may be growing
_GLANCES = 4  # looks for the task of an upload that broke off
_PAUSE = 0.5  # seconds between them


class _Body(io.FileIO):
    """The file as it is sent: under another name, and telling how far it is.

    proxmoxer streams what is an `io.IOBase`, and takes the name from its `name`.
    """

    def __init__(self, file: Path, name: str, advance: Advance) -> None:
        super().__init__(file, "rb")
        self.name = name
        self._advance = advance

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        self._advance(len(data))
        return data


class Uploads:
    """Uploads templates to the places of one target."""

    def __init__(self, client: Client, placement: Placement, token_id: str | None) -> None:
        self._client = client
        self._placement = placement
        self._token_id = token_id

    def check(self, place: Place, size: int) -> None:
        """Raise PublishError when the place would not take a file of `size` bytes.

        Looked at are the privileges and the space, on the storage and where the endpoint spools
        the body: uploads are not proxied, so that is the endpoint's own /var/tmp, whatever node
        the storage is on.  Without Sys.Audit nobody tells how much it has; then a storage that
        is not shared has to have room for two, since it may well be the same disk.
        """
        for duty in storage_duties(place.storage.name):
            if duty.name == "delete":
                continue
            answer = self._client.get("access/permissions", path=duty.path)
            if missing := duty.missing(answer.get(duty.path, {})):
                raise PublishError(
                    f"the token may not {duty.name} on {place.label}: "
                    f"{', '.join(missing)} on {duty.path} is missing",
                    granting(self._token_id, duty.path, missing),
                )
        spool = self.spool()
        twice = not place.storage.shared and (spool is None or spool[1] == place.total)
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

    def spool(self) -> tuple[int, int] | None:
        """Return the endpoint's free and total bytes of its root file system, if it tells."""
        try:
            root = self._client.get("nodes/localhost/status").get("rootfs", {})
            return int(root["avail"]), int(root["total"])
        except (PublishError, LookupError, ValueError):
            return None

    def upload(
        self, place: Place, file: Path, name: str, digest: Digest, advance: Advance
    ) -> Volume:
        """Ensure that the place lists `file` as `name`, never over another file.

        The caller holds the name's lock.  Raise PublishError, or TargetUnavailableError where
        trying again later may help.
        """
        size = file.stat().st_size
        there = self._settled(place, name, size, advance)
        if there is not None:
            return there
        self.check(place, size)
        known = frozenset(tasks.own(self._client, _TASK))
        try:
            with _Body(file, name, advance) as body:
                upid = self._client.post(
                    f"nodes/{place.node}/storage/{place.storage.name}/upload",
                    # The parts have to come in this order.
                    **{
                        "content": TEMPLATES,
                        "checksum-algorithm": digest.algorithm,
                        "checksum": digest.encoded,
                        "filename": body,
                    },
                )
        except BrokenOffError as exc:
            # A body that is not wanted ends in a dropped connection too: when the token is bad,
            # or lacks the privilege.  That is no passing fault, and small calls bring it out.
            self.check(place, size)
            upid = self._diagnose(exc, place, name, known, advance)
        except OSError as exc:
            raise StorageError(f"{file} cannot be read: {exc.strerror}") from exc
        self._finished(upid, place, name, advance)
        volume = self._placement.volume(place, name)
        if volume is None or volume.size != size:
            found = f"{volume.size} bytes" if volume else "nothing"
            raise PublishError(
                f"the upload of {name} to {place.label} ended well, but {found} is listed "
                f"where {size} bytes should be",
                "somebody else may write or delete there; see the log of the task "
                f"{upid} for what happened",
            )
        return volume

    def _settled(self, place: Place, name: str, size: int, advance: Advance) -> Volume | None:
        """Return the template if it is there, None if it is not; wait while it is growing."""
        ended = set(tasks.own(self._client, _TASK))
        ended -= set(tasks.own(self._client, _TASK, running=True))
        if upid := self._task_for(name, ended, advance):
            tasks.follow(self._client, upid, advance)
        volume = self._placement.volume(place, name)
        if volume is None or volume.size == size:
            return volume
        time.sleep(_GLANCE)
        again = self._placement.volume(place, name)
        if again is None or again.size != volume.size:
            raise TargetUnavailableError(
                f"{volume.volid} on {place.label} is being written by somebody else"
            )
        raise PublishError(
            f"{volume.volid} is on {place.label} already with another size "
            f"({volume.size} bytes, not {size})",
            "syncd never overwrites; if it is a leftover of a failed copy, remove it: "
            f"pvesm free {volume.volid}",
        )

    def _task_for(self, name: str, known: Collection[str], advance: Advance) -> str | None:
        """Return the upload task of this file, other than the `known` ones; None if there is none.

        Only a task's log tells what it writes, and not at once.
        """
        while True:
            undecided = False
            for upid in tasks.own(self._client, _TASK):
                if upid in known:
                    continue
                target = self._target_of(upid)
                if target == name:
                    return upid
                undecided = undecided or (target is None and tasks.runs(self._client, upid))
            if not undecided:
                return None
            advance(0)
            time.sleep(_PAUSE)

    def _target_of(self, upid: str) -> str | None:
        """Return the name of the file that a task writes; None as long as it does not say."""
        try:
            lines = tasks.log(self._client, upid)
        except PublishError:
            return ""  # somebody else's
        told = (line for line in lines if line.startswith("target file:"))
        return next((line.rpartition("/")[2] for line in told), None)

    def _diagnose(
        self,
        broken: BrokenOffError,
        place: Place,
        name: str,
        known: Collection[str],
        advance: Advance,
    ) -> str:
        """Return the task of an upload whose connection broke off, or say that there is none."""
        for _ in range(_GLANCES):
            upid = self._task_for(name, known, advance)
            if upid is not None:
                return upid
            time.sleep(_PAUSE)
        raise TargetUnavailableError(
            f"the upload of {name} to {place.label} broke off and left no task: {broken.what}",
            "the token and its privileges are good; it is tried again later",
        ) from broken

    def _finished(self, upid: str, place: Place, name: str, advance: Advance) -> None:
        exitstatus = tasks.follow(self._client, upid, advance)
        if exitstatus != tasks.OK:
            raise PublishError(
                f"the upload of {name} to {place.label} failed: {exitstatus}",
                f"its log ends: {tasks.log_end(self._client, upid)}",
            )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
