"""What `convert.capacity` promises: memory is counted, and who waits for bytes takes no place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from syncd.convert.capacity import Capacity, CrowdedError, Share
from syncd.errors import LimitError, StoppedError
from syncd.limits import Limits


def capacity(places: int = 1, memory: int = 100) -> Capacity:
    """Return a capacity of so many bytes."""
    return Capacity(places, Limits(memory=memory).memory)


def quiet() -> None:
    """Let whoever waits wait on."""


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_memory_adds_up() -> None:
    """What conversions hold counts together, and is free when they end or give it back."""
    shared = capacity()
    with shared.share(10, quiet) as one, shared.share(20, quiet) as two:
        one.hold(30)
        two.hold(40)
        assert shared.held == 100
        two.hold(-40)
        assert shared.held == 60
    assert shared.held == 0


def test_what_others_hold() -> None:
    """More than others leave is told apart from more than there is; nothing is taken by either."""
    shared = capacity()
    with shared.share(50, quiet), shared.share(40, quiet) as second:
        with pytest.raises(CrowdedError) as crowded:
            second.hold(20)
        assert crowded.value.needed == 60
        with pytest.raises(LimitError, match=r"limits\.memory .*MemoryMax"):
            second.hold(61)
        second.hold(10)
        assert shared.held == 100


def test_never_enough() -> None:
    """A conversion that begins with more than there is at all is refused at once."""
    with pytest.raises(LimitError, match="memory"), capacity().share(101, quiet):
        pass


def test_first_come_first_served() -> None:
    """A conversion waits for the memory that it needs, and a smaller one does not overtake it."""
    shared, begun = capacity(), list[int]()

    def convert(needed: int) -> None:
        with shared.share(needed, quiet):
            begun.append(needed)

    with ThreadPoolExecutor(2) as threads:
        with shared.share(50, quiet):
            large = threads.submit(convert, 90)
            until(lambda: len(shared._queue) == 1)
            small = threads.submit(convert, 10)
            until(lambda: len(shared._queue) == 2)
            assert begun == []
        large.result(10)
        small.result(10)
    assert begun == [90, 10]
    assert shared.held == 0


def test_waiting_ends() -> None:
    """A conversion that waits can be stopped, and keeps nobody else waiting."""

    def stop() -> None:
        raise StoppedError("syncd is stopping")

    shared = capacity()
    with shared.share(90, quiet):
        with pytest.raises(StoppedError), shared.share(50, stop):
            pass
        with shared.share(10, quiet):
            assert shared.held == 100


def test_more_memory() -> None:
    """A larger bound counts at once."""
    shared = capacity()
    with shared.share(90, quiet), ThreadPoolExecutor(1) as threads:
        with pytest.raises(LimitError), shared.share(110, quiet):
            pass
        shared.resize(1, Limits(memory=300).memory)

        def convert() -> None:
            with shared.share(110, quiet):
                pass

        threads.submit(convert).result(10)


def works(share: Share, go: threading.Event, inside: list[Share]) -> None:
    """Work until `go`."""
    with share.working():
        inside.append(share)
        go.wait(10)


def test_places() -> None:
    """As many conversions work as there are places; the threads of one need one place."""
    shared, go, inside = capacity(), threading.Event(), list[Share]()
    with (
        ThreadPoolExecutor(4) as threads,
        shared.share(0, quiet) as one,
        shared.share(0, quiet) as two,
    ):
        for share in (one, one, two):
            threads.submit(works, share, go, inside)
            until(lambda: one in inside)
        until(lambda: inside.count(one) == 2)
        time.sleep(0.05)
        assert inside == [one, one]
        go.set()
        until(lambda: len(inside) == 3)


def test_waiting_takes_no_place() -> None:
    """A conversion whose threads all wait for bytes leaves its place to another one."""
    shared, go, inside = capacity(), threading.Event(), list[Share]()
    with (
        ThreadPoolExecutor(2) as threads,
        shared.share(0, quiet) as slow,
        shared.share(0, quiet) as healthy,
        slow.working(),
    ):
        ended = threads.submit(works, healthy, go, inside)
        time.sleep(0.05)
        assert inside == []
        with slow.waiting():
            until(lambda: inside == [healthy])
            go.set()
            ended.result(10)
