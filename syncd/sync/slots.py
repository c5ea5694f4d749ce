"""Places for work that waits: fresh work before backlog, and the images in turn.

A push is fresh; what the clock, a sweep or a signal brings is backlog.  Ten thousand tags of one
image wait behind each other, and keep neither a push nor another image's tags waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar


class Turn:
    """What work that waits is about: an image, and whether the work is backlog."""

    __slots__ = ("backlog", "image")

    def __init__(self, image: str = "", *, backlog: bool = False) -> None:
        self.image = image
        self.backlog = backlog


_turn: ContextVar[Turn] = ContextVar("turn")


@contextmanager
def turn_of(turn: Turn) -> Iterator[None]:
    """Let what is awaited in this context wait as `turn` says."""
    token = _turn.set(turn)
    try:
        yield
    finally:
        _turn.reset(token)


class _Line:
    """Those who wait, by image; the images are served in turn."""

    def __init__(self) -> None:
        self._images: dict[str, deque[tuple[Turn, asyncio.Future[None]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._images)

    def add(self, turn: Turn, place: asyncio.Future[None]) -> None:
        """Put somebody behind the others of the same image."""
        self._images.setdefault(turn.image, deque()).append((turn, place))

    def pop(self) -> asyncio.Future[None]:
        """Take out the first of the image whose turn it is."""
        image, waiting = next(iter(self._images.items()))
        del self._images[image]
        _, place = waiting.popleft()
        if waiting:
            self._images[image] = waiting
        return place

    def drop(self, turn: Turn, place: asyncio.Future[None]) -> None:
        """Take somebody out who does not wait any more."""
        waiting = self._images.get(turn.image, deque())
        if (turn, place) in waiting:
            waiting.remove((turn, place))
            if not waiting:
                del self._images[turn.image]

    def take(self, turn: Turn) -> list[asyncio.Future[None]]:
        """Take out all that wait by this very turn."""
        waiting = self._images.pop(turn.image, deque())
        taken = [place for other, place in waiting if other is turn]
        rest = deque((other, place) for other, place in waiting if other is not turn)
        if rest:
            self._images[turn.image] = rest
        return taken


class Slots:
    """A number of places.  Who waits is served as `turn_of` says.  Lives in one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._fresh = _Line()
        self._backlog = _Line()

    @property
    def idle(self) -> bool:
        """Whether nobody holds a place or waits for one."""
        return not self._taken and not self._fresh and not self._backlog

    async def acquire(self) -> None:
        """Wait for a place and take it."""
        if self._taken < self._limit and not self._fresh and not self._backlog:
            self._taken += 1
            return
        turn = _turn.get(None) or Turn()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._backlog if turn.backlog else self._fresh).add(turn, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()
            else:
                self._fresh.drop(turn, place)
                self._backlog.drop(turn, place)
            raise

    def release(self) -> None:
        """Give a place back."""
        self._taken -= 1
        self._hand_out()

    def resize(self, limit: int) -> None:
        """Change the number of places; who holds one keeps it."""
        self._limit = limit
        self._hand_out()

    def hasten(self, turn: Turn) -> None:
        """Let those that wait by this turn wait as fresh work from now on."""
        for place in self._backlog.take(turn):
            self._fresh.add(turn, place)

    def _hand_out(self) -> None:
        while self._taken < self._limit and (line := self._fresh or self._backlog):
            place = line.pop()
            if not place.done():
                self._taken += 1
                place.set_result(None)


class KeyedSlots:
    """As many places for each key, such as a registry's host.  Lives in one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots: dict[str, Slots] = {}

    @asynccontextmanager
    async def taken(self, key: str, turn: Turn) -> AsyncIterator[None]:
        """Wait for a place, as `turn` says, and hold it until the context ends."""
        with turn_of(turn):
            slots = self._slots.setdefault(key, Slots(self._limit))
            await slots.acquire()
            try:
                yield
            finally:
                slots.release()
                if slots.idle:
                    self._slots.pop(key, None)

    def resize(self, limit: int) -> None:
        """Change the number of places of each key; who holds one keeps it."""
        self._limit = limit
        for slots in self._slots.values():
            slots.resize(limit)

    def hasten(self, key: str, turn: Turn) -> None:
        """Let those that wait by this turn wait as fresh work from now on."""
        if key in self._slots:
            self._slots[key].hasten(turn)
