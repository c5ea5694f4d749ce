"""Threads for blocking work, each kind of work bounded by itself.

The event loop's default executor is never used: there a registry that accepts connections and says
nothing would soon hold every thread, and nothing else in the process would go on.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any, ParamSpec, TypeVar

import structlog

from syncd.errors import LedgerUnavailableError
from syncd.sync.slots import Slots

log = structlog.stdlib.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

LOOKS = 120
"""Looks at a time in all."""
LOOKS_PER_HOST = 6
"""Looks at one host at a time: twenty hosts have to fall silent before another one waits."""
UPLOADS = 32
"""Templates that are published at a time in all."""
UPLOADS_PER_TARGET = 2
"""Templates that are published into one target at a time."""
CONVERSIONS_MAX = 32
"""Conversions under way in all; `syncd.convert.Capacity` bounds how many work at a time."""
CREATIONS = 8
"""Containers that are made at a time."""
LEDGER_CALLS = 16
"""Calls of the ledger at a time: those that write share one flush of the disk."""
LEDGER_PATIENCE = 4.0
"""Seconds for an answer of the ledger to a request.  A delivery asks twice, and GitHub gives it up
after 10; four flushes of a slow disk fit in."""
LEDGER_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts at what a passing fault of the ledger keeps from being done."""
_KEYS = 256  # keys remembered before those without work are forgotten


class BoundedExecutor:
    """Threads of which at most `limit` work at a time."""

    def __init__(self, name: str, limit: int) -> None:
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix=name)
        self._slots = Slots(limit)

    async def run(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `act` in a thread, within the caller's context; return or raise what it does.

        A caller that is cancelled goes at once; the place is taken until the thread is done.
        """
        await self._slots.acquire()
        return await _in_thread(self._threads, self._slots, act, *args, **kwargs)

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class KeyedExecutor:
    """Threads of which at most `limit` work at a time, and at most `per_key` for each key.

    A key is the host or the target that the work waits for, so that a silent one keeps only its
    own work waiting.
    """

    def __init__(self, name: str, limit: int, per_key: int) -> None:
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix=name)
        self._per_key = per_key
        self._slots: dict[str, Slots] = {}

    async def run(self, key: str, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `act`, which waits for `key`, in a thread; return or raise what it does."""
        if len(self._slots) >= _KEYS:
            self._slots = {name: slots for name, slots in self._slots.items() if not slots.idle}
        slots = self._slots.setdefault(key, Slots(self._per_key))
        await slots.acquire()
        return await _in_thread(self._threads, slots, act, *args, **kwargs)

    def resize(self, per_key: int) -> None:
        """Change how many work at a time for each key."""
        self._per_key = per_key
        for slots in self._slots.values():
            slots.resize(per_key)

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Executors:
    """The executors of one process, each for one kind of blocking work.

    `conversions` of each registry are under way at a time: one whose registry is silent only waits.
    """

    def __init__(self, conversions: int) -> None:
        self.looking = KeyedExecutor("look", LOOKS, LOOKS_PER_HOST)
        self.converting = KeyedExecutor("convert", CONVERSIONS_MAX, conversions)
        self.publishing = KeyedExecutor("publish", UPLOADS, UPLOADS_PER_TARGET)
        self.creating = BoundedExecutor("create", CREATIONS)
        self.tidying = BoundedExecutor("tidy", 1)
        self._ledger = BoundedExecutor("ledger", LEDGER_CALLS)
        self._reading = BoundedExecutor("read", 1)

    async def ledger(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the ledger off the loop; return or raise what it does."""
        return await self._ledger.run(act, *args, **kwargs)

    async def ledger_at_last(
        self, pauses: Sequence[float], act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a method of the ledger as `ledger` does, however long a fault that may pass lasts.

        `pauses` are the seconds between attempts, of which the last is repeated.
        """
        for pause in chain(pauses, repeat(pauses[-1])):
            try:
                return await self.ledger(act, *args, **kwargs)
            except LedgerUnavailableError as exc:
                log.warning("the ledger is tried again", after=pause, error=str(exc))
            await asyncio.sleep(pause)
        raise AssertionError("the last pause is repeated")

    async def ledger_soon(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the ledger for somebody who cannot wait long; else as `ledger`.

        Raise LedgerUnavailableError when the answer takes longer than LEDGER_PATIENCE.
        """
        return await soon(self.ledger(act, *args, **kwargs))

    async def read_soon(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the ledger that only reads, and so waits for no write.

        Raise LedgerUnavailableError when the answer takes longer than LEDGER_PATIENCE.
        """
        return await soon(self._reading.run(act, *args, **kwargs))

    def close(self) -> None:
        """Begin nothing more; what runs is not waited for."""
        for executor in (
            self.looking,
            self.converting,
            self.publishing,
            self.creating,
            self.tidying,
            self._ledger,
            self._reading,
        ):
            executor.close()


async def _in_thread(
    threads: ThreadPoolExecutor,
    slots: Slots,
    act: Callable[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call `act` in one of the threads, and give the place that is held back when it is done."""
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()

    def call() -> T:
        return context.run(act, *args, **kwargs)

    def done(_: Future[Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(slots.release)

    try:
        future = threads.submit(call)
    except RuntimeError:
        slots.release()
        raise
    future.add_done_callback(done)
    return await asyncio.wrap_future(future)


async def soon(waiting: Coroutine[Any, Any, T]) -> T:
    """Wait, for somebody who cannot wait long, for something that needs the ledger.

    What was begun goes on when the wait ends.  Raise LedgerUnavailableError after LEDGER_PATIENCE.
    """
    begun = asyncio.ensure_future(waiting)
    try:
        async with asyncio.timeout(LEDGER_PATIENCE):
            return await asyncio.shield(begun)
    except TimeoutError as exc:
        begun.add_done_callback(lambda end: end.cancelled() or end.exception())
        raise LedgerUnavailableError(
            f"the ledger gave no answer within {LEDGER_PATIENCE:g} s",
            "its disk is slow, or another process holds the ledger",
        ) from exc
