"""What the conversions of one process share: places to work in, and bytes of memory.

A conversion that waits for its registry works in no place, so registries that are silent or slow
keep nobody else from working.  Memory is counted before it is taken, all running conversions
together.  A conversion that finds the rest of the memory held by others is given up, whole, and
begins anew once as much as it needs is free: no conversion that holds memory waits for more, so two
can never wait for each other.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from syncd.errors import SyncdError
from syncd.limits import Bound

FRAME = 450
"""Bytes of memory that a frame takes whose place is known: measured with tracemalloc (CPython 3.11,
64 bits), 385 and a tenth that the allocator wastes."""
MEMORY = "the memory that the conversion of this image needs"
"""The subject of errors about `limits.memory`."""
_LOOK = 0.25  # seconds between two looks at whether whoever waits is to stop

Alive = Callable[[], None]
"""Raises StoppedError when a conversion that waits is to stop."""


class CrowdedError(SyncdError):
    """Memory that a conversion needs is held by others; `needed` is what it needed in all.

    It never leaves this package.
    """

    temporary = True

    def __init__(self, needed: int) -> None:
        super().__init__("the memory for conversions is held by others")
        self.needed = needed


class Capacity:
    """Places and memory for the conversions of a process.  Safe to use from several threads."""

    def __init__(self, places: int, memory: Bound) -> None:
        self._changed = threading.Condition()
        self._places = places
        self._working = 0
        self._memory = memory
        self._held = 0
        self._queue: deque[object] = deque()

    @property
    def held(self) -> int:
        """How many bytes the running conversions hold together."""
        return self._held

    def resize(self, places: int, memory: Bound) -> None:
        """Change how many conversions work at a time, and how many bytes they hold together."""
        with self._changed:
            self._places, self._memory = places, memory
            self._changed.notify_all()

    @contextmanager
    def share(self, needed: int, alive: Alive) -> Iterator[Share]:
        """Give a conversion its share, once `needed` bytes are free: first come, first served.

        Raise LimitError when there are never so many, and what `alive` raises.
        """
        share = _CountedShare(self, alive)
        with self._changed:
            self._queue.append(share)
            try:
                while self._queue[0] is not share or not self._has_room(needed):
                    alive()
                    self._changed.wait(_LOOK)
                share.take(needed)
            finally:
                self._queue.remove(share)
                self._changed.notify_all()
        try:
            yield share
        finally:
            with self._changed:
                self._held -= share.held
                self._changed.notify_all()

    def _has_room(self, needed: int) -> bool:
        self._memory.check(needed, MEMORY)
        return self._held + needed <= self._memory.maximum


class Share(ABC):
    """What one conversion has of a capacity.  Safe to use from several threads.

    `alive` raises when a thread that waits for a place is to stop.
    """

    held = 0
    """Bytes of memory that the conversion holds."""

    def __init__(self, alive: Alive) -> None:
        self._alive = alive

    @abstractmethod
    def hold(self, amount: int) -> None:
        """Hold `amount` more bytes of memory, or fewer if it is negative.

        Raise LimitError for more than there is at all, CrowdedError for more than others leave.
        """

    @abstractmethod
    def take_place(self, alive: Alive) -> None:
        """Wait for a place, unless the conversion has one; raise what `alive` raises."""

    @abstractmethod
    def give_place(self) -> None:
        """Do without the place; it is free once it was given as often as taken."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on this thread: wait for a place, unless the conversion has one."""
        self.take_place(self._alive)
        try:
            yield
        finally:
            self.give_place()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait on a thread that works: its place is free meanwhile if no other thread works."""
        self.give_place()
        try:
            yield
        finally:
            self.take_place(_patient)


class _CountedShare(Share):
    """A share of a capacity in this process."""

    def __init__(self, capacity: Capacity, alive: Alive) -> None:
        super().__init__(alive)
        self._capacity = capacity
        self._threads = 0

    def hold(self, amount: int) -> None:
        with self._capacity._changed:
            self.take(amount)
            if amount < 0:
                self._capacity._changed.notify_all()

    def take(self, amount: int) -> None:
        """Do as `hold`, for who has the capacity's lock."""
        memory = self._capacity._memory
        if amount > 0:
            memory.check(self.held + amount, MEMORY)
            if self._capacity._held + amount > memory.maximum:
                raise CrowdedError(self.held + amount)
        self.held += amount
        self._capacity._held += amount

    def take_place(self, alive: Alive) -> None:
        capacity = self._capacity
        with capacity._changed:
            while not self._threads and capacity._working >= capacity._places:
                alive()
                capacity._changed.wait(_LOOK)
            capacity._working += not self._threads
            self._threads += 1

    def give_place(self) -> None:
        with self._capacity._changed:
            self._threads -= 1
            self._capacity._working -= not self._threads
            self._capacity._changed.notify_all()


def _patient() -> None:
    """Let a thread wait on."""
