"""What `sync.executors` promises: each kind of blocking work is bounded, and starves no other."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from syncd.errors import LedgerUnavailableError
from syncd.sync import executors
from syncd.sync.executors import BoundedExecutor, Executors, KeyedExecutor
from syncd.sync.slots import Slots, Turn, turn_of
from tests.waiting import until


class Gate:
    """Blocking work that waits to be let through, and counts who is inside."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self._lock = threading.Lock()

    def work(self) -> None:
        """Wait inside."""
        with self._lock:
            self.inside += 1
        self.open.wait(10)
        with self._lock:
            self.inside -= 1


async def test_bounded() -> None:
    """No more calls run at a time than the limit says, and all get their turn."""
    executor, gate = BoundedExecutor("work", 2), Gate()
    calls = [asyncio.ensure_future(executor.run(gate.work)) for _ in range(5)]
    await until(lambda: gate.inside == 2)
    await asyncio.sleep(0.05)
    assert gate.inside == 2
    gate.open.set()
    await asyncio.gather(*calls)
    executor.close()


async def test_resized() -> None:
    """A new limit counts at once for those that wait; a smaller one lets the running finish."""
    executor, gate = KeyedExecutor("work", 8, 1), Gate()
    calls = [asyncio.ensure_future(executor.run("host", gate.work)) for _ in range(5)]
    await until(lambda: gate.inside == 1)
    executor.resize(3)
    await until(lambda: gate.inside == 3)
    executor.resize(1)
    assert gate.inside == 3
    gate.open.set()
    await asyncio.gather(*calls)
    gate.open.clear()
    calls = [asyncio.ensure_future(executor.run("host", gate.work)) for _ in range(3)]
    await until(lambda: gate.inside == 1)
    await asyncio.sleep(0.05)
    assert gate.inside == 1
    gate.open.set()
    await asyncio.gather(*calls)
    executor.close()


async def test_a_caller_that_leaves() -> None:
    """The place of a caller that is cancelled is free when its thread is done, not before."""
    executor, gate = BoundedExecutor("work", 1), Gate()
    left = asyncio.ensure_future(executor.run(gate.work))
    await until(lambda: gate.inside == 1)
    waiting = asyncio.ensure_future(executor.run(gate.work))
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    await asyncio.sleep(0.05)
    assert gate.inside == 1
    gate.open.set()
    await waiting
    executor.close()


async def test_a_waiter_that_leaves() -> None:
    """A caller that is cancelled while it waits for a place leaves the place to the next."""
    slots = Slots(1)
    await slots.acquire()
    first, second = (asyncio.ensure_future(slots.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    slots.release()
    await asyncio.wait_for(second, 1)
    slots.release()
    assert slots.idle


async def test_a_waiter_that_leaves_when_a_place_comes() -> None:
    """A caller that is cancelled just before a place is free leaves as any other caller does."""
    slots = Slots(1)
    await slots.acquire()
    waiting = asyncio.ensure_future(slots.acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    slots.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.idle


async def test_a_place_that_comes_too_late() -> None:
    """A place that is handed to a caller just when it is cancelled goes back."""
    slots = Slots(1)
    await slots.acquire()
    waiting = asyncio.ensure_future(slots.acquire())
    await asyncio.sleep(0)
    slots.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.idle


async def test_hosts_do_not_starve_each_other() -> None:
    """One host that says nothing takes its own few threads, and no other's."""
    looking, silent, healthy = KeyedExecutor("look", limit=8, per_key=2), Gate(), Gate()
    calls = [asyncio.ensure_future(looking.run("silent", silent.work)) for _ in range(20)]
    await until(lambda: silent.inside == 2)
    healthy.open.set()
    await asyncio.wait_for(looking.run("healthy", healthy.work), 2)
    assert silent.inside == 2
    silent.open.set()
    await asyncio.gather(*calls)
    looking.close()


async def test_context() -> None:
    """A call sees the caller's context, as the log's bound values need it."""
    name = contextvars.ContextVar("name", default="")
    name.set("job 1")
    executor = BoundedExecutor("work", 1)
    assert await executor.run(name.get) == "job 1"
    executor.close()


async def test_errors() -> None:
    """What a call raises is raised where it is awaited, and its place is free again."""
    executor = BoundedExecutor("work", 1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await executor.run(divmod, 1, 0)
    executor.close()
    with pytest.raises(RuntimeError):
        await executor.run(divmod, 1, 1)


async def test_a_slow_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot wait is told that the ledger is slow, well before GitHub gives up."""
    assert 2 * executors.LEDGER_PATIENCE < 9
    monkeypatch.setattr(executors, "LEDGER_PATIENCE", 0.05)
    threads, gate = Executors(conversions=1), Gate()
    with pytest.raises(LedgerUnavailableError, match="gave no answer") as caught:
        await threads.ledger_soon(gate.work)
    assert caught.value.temporary
    assert gate.inside == 1
    gate.open.set()
    await threads.ledger(gate.work)
    threads.close()


async def test_turns_of_looks() -> None:
    """Looks wait by turn, too: a fresh one does not wait for a sweep's."""
    looking, gate, order = KeyedExecutor("look", limit=8, per_key=1), Gate(), list[str]()

    async def look(image: str, *, backlog: bool) -> None:
        with turn_of(Turn(image, backlog=backlog)):
            await looking.run("host", order.append, f"{image} {'swept' if backlog else 'pushed'}")

    first = asyncio.ensure_future(looking.run("host", gate.work))
    await until(lambda: gate.inside == 1)
    calls = [asyncio.ensure_future(look("a", backlog=True)) for _ in range(3)]
    calls += [asyncio.ensure_future(look("b", backlog=True))]
    calls += [asyncio.ensure_future(look("a", backlog=False))]
    left = asyncio.ensure_future(look("a", backlog=True))
    await asyncio.sleep(0.01)
    left.cancel()
    gate.open.set()
    await asyncio.gather(first, *calls)
    assert order == ["a pushed", "a swept", "b swept", "a swept", "a swept"]
    looking.close()
