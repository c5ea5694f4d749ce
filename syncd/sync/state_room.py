"""All of the state within `state.cache_max`, at every moment; what was used longest ago goes first.

A job says what it will write before it begins, and a conversion says what it writes beyond that
before it writes it.  Room is made by removing blobs, unpacked layers and finished templates, all of
which can be made again; it is made, too, when the disk itself becomes full.  What a running job
needs stays, and so do the ledger and all other files, which count.  A job that finds no room waits
while others hold some, and fails when there never would be enough.

What other processes write into files without a name is not seen, only what they leave.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from syncd.config import StateSettings
from syncd.errors import FullStateError, NoRoomError, StorageError
from syncd.files import free_and_total, require_room
from syncd.oci import BlobCache, Digest
from syncd.sync.context import Running
from syncd.sync.state_files import Inventory, look, parts
from syncd.sync.template_use import remove_unused

_LOOK = 0.5  # seconds between two looks at whether there is room now, or whether to stop
_HINT = "set state.cache_max higher, if the disk has the room"

Alive = Callable[[], None]
"""Raises StoppedError when a job that waits is to stop."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a conversion needs: bytes of `work` in its folder, and blobs with their sizes.

    `uses` are files of the state that it may read.
    """

    work: int
    blobs: Mapping[Digest, int] = field(default_factory=dict)
    uses: Collection[Path] = ()

    @property
    def whole(self) -> int:
        """How many bytes the conversion writes."""
        return self.work + sum(self.blobs.values())


class RoomShare:
    """What one conversion takes of the state.  Safe to use from several threads."""

    def __init__(self, room: StateRoom, folder: Path, need: Need) -> None:
        self._room = room
        self.folder = folder
        self.need = need
        self.uses = set(need.uses)
        self.held = 0
        self.refused = 0
        """How many bytes of work the conversion would have had, had it not been refused some."""

    @property
    def work(self) -> int:
        """How many bytes of work count: what was promised, or what was written if that is more."""
        return max(self.need.work, self.held)

    def hold(self, amount: int) -> None:
        """Count `amount` more bytes that will be written, or fewer; raise FullStateError."""
        self._room.hold(self, amount)

    def use(self, files: Iterable[Path]) -> None:
        """Use further files of the state."""
        self._room.use(self, files)


class StateRoom:
    """Keeps the state within its bound.  Blocking; safe to use from several threads."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._shares: list[RoomShare] = []
        self._locked = False

    @contextmanager
    def share(self, folder: Path, need: Callable[[], Need], alive: Alive) -> Iterator[RoomShare]:
        """Give a conversion in `folder` what it needs: first come, first served.

        `need` is asked as often as the state is looked at.  Raise NoRoomError when there never will
        be enough, StorageError when the state cannot be looked at, and what `alive` raises.
        """
        place = object()
        with self._changed:
            self._queue.append(place)
            try:
                while True:
                    wanted = need()
                    if self._queue[0] is place and self._fits(wanted):
                        break
                    alive()
                    self._changed.wait(_LOOK)
                share = RoomShare(self, folder, wanted)
                self._shares.append(share)
            finally:
                self._queue.remove(place)
                self._changed.notify_all()
        try:
            yield share
        finally:
            with self._changed:
                self._shares.remove(share)
                self._changed.notify_all()

    def hold(self, share: RoomShare, amount: int) -> None:
        """Do what `RoomShare.hold` says."""
        with self._changed:
            more = share.held + amount - share.work
            if more > 0 and not self._make(more):
                share.refused = share.held + amount
                raise FullStateError(self._lack(share.refused), _HINT)
            share.held += amount

    def use(self, share: RoomShare, files: Iterable[Path]) -> None:
        """Do what `RoomShare.use` says."""
        with self._changed:
            share.uses.update(files)

    def in_use(self) -> set[Path]:
        """Return the files that running conversions use or fetch."""
        with self._changed:
            return self._coming().union(*(share.uses for share in self._shares))

    def most(self) -> int:
        """Return how many bytes a job could write if all went that can be made again."""
        with self._changed:
            return max(self._state.cache_max - self._inventory().lasting, 0)

    def shrink(self) -> None:
        """Ensure that the state is within its bound, as far as running jobs allow."""
        with self._changed:
            self._make(0)

    def parts(self) -> dict[str, int]:
        """Return the bytes of the parts of the state; `work` has what was promised.

        Raise OSError.
        """
        with self._changed:
            work = sum(share.work for share in self._shares)
            own = {share.folder for share in self._shares}
        found = parts(self._state.paths, own)
        found["work"] += work
        return found

    @property
    def _state(self) -> StateSettings:
        return self._running.config.state

    def _fits(self, need: Need) -> bool:
        """Tell whether there is room now; raise NoRoomError when there never will be."""
        promised = self._promised()
        more = need.work + sum(need.blobs[digest] for digest in need.blobs.keys() - promised.keys())
        if self._make(more, need.uses):
            return True
        if need.whole > self.most():
            raise NoRoomError(self._lack(need.whole), _HINT)
        if self._shares or self._locked:
            return False
        # Nobody else has room to give back, so the job makes again what it would have used.
        if not self._make(more):
            label = str(self._state.directory)
            require_room(self._free(), more, self._state.reserve, label)
        return False

    def _make(self, more: int, keeping: Collection[Path] = ()) -> bool:
        """Remove what can be made again until `more` bytes have room; tell whether they have."""
        state, found = self._state, self._inventory(keeping)
        coming = sum(self._promised().values())
        unwritten = sum(share.work - share.held for share in self._shares) + coming - found.coming
        taken = found.size + coming + sum(share.work for share in self._shares)
        lacking = max(
            taken + more - state.cache_max,
            max(unwritten, 0) + more + state.reserve - self._free(),
        )
        blobs: list[Path] = []
        self._locked = False
        try:
            for spare in found.spares:
                if lacking <= 0:
                    break
                if spare.path.is_relative_to(state.paths.blob_cache):
                    blobs.append(spare.path)
                elif spare.path.parent != state.paths.templates:
                    spare.path.unlink(missing_ok=True)
                elif not remove_unused(spare.path):
                    self._locked = True
                    continue
                lacking -= spare.size
        except OSError as exc:
            raise StorageError(f"{state.directory} cannot be tidied: {exc.strerror}") from exc
        if blobs:
            BlobCache(state.paths.blob_cache, self._running.config.limits.bounds()).drop(blobs)
        return lacking <= 0

    def _inventory(self, keeping: Collection[Path] = ()) -> Inventory:
        own = {share.folder for share in self._shares}
        busy = set(keeping).union(*(share.uses for share in self._shares))
        try:
            return look(self._state.paths, own, self._coming(), busy)
        except OSError as exc:
            raise self._unseen(exc) from exc

    def _promised(self) -> dict[Digest, int]:
        """Return the blobs that running conversions fetch, with their sizes."""
        return {digest: size for share in self._shares for digest, size in share.need.blobs.items()}

    def _coming(self) -> set[Path]:
        """Return the files of the blobs that running conversions fetch."""
        folder = self._state.paths.blob_cache
        return {path for digest in self._promised() for path in BlobCache.places(folder, digest)}

    def _free(self) -> int:
        try:
            return free_and_total(self._state.directory)[0]
        except OSError as exc:
            raise self._unseen(exc) from exc

    def _unseen(self, exc: OSError) -> StorageError:
        return StorageError(f"{self._state.directory} cannot be looked at: {exc.strerror}")

    def _lack(self, needed: int) -> str:
        state = self._state
        return (
            f"{state.directory} may take {state.cache_max / 1e9:.3f} GB (state.cache_max), "
            f"{(state.cache_max - self.most()) / 1e9:.3f} GB of which are for what stays, "
            f"and the job needs {needed / 1e9:.3f} GB or more"
        )
