"""What `telling` promises: a round ends, whatever receivers do, and harms nobody but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from syncd.report import receivers as receivers_module
from syncd.report.receivers import Message, receivers_of
from syncd.report.telling import Told, told
from tests.fakes.receiver import PASSWORD, Receiver

FIRST, SECOND = Message(1, "first", "body", "info"), Message(2, "second", "body", "failure")


@pytest.fixture
def served() -> Iterator[list[Receiver]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Receiver()) for _ in range(6)]


def children() -> set[str]:
    """Return the processes that this one started and that are still there."""
    files = Path("/proc/self/task").glob("*/children")
    return {pid for file in files for pid in file.read_text().split()}


def of_process(pid: str, name: str) -> str:
    """Return what the kernel tells of a process (proc(5)), nothing once that is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


async def test_in_order(served: list[Receiver]) -> None:
    """Each receiver gets its messages in order, and none after its first failure."""
    well, refusing = served[:2]
    refusing.status = 403
    parties = receivers_of([well.url, refusing.url])
    ends = await told([(party, [FIRST, SECOND]) for party in parties], patience=30)
    assert sorted(ends, key=str) == [
        Told(1, 1, None),
        Told(1, 2, None),
        Told(2, 1, "URL 2 (json) answers 403"),
    ]
    assert [heard["title"] for heard in well.heard] == ["first", "second"]
    assert [heard["type"] for heard in well.heard] == ["info", "failure"]


async def test_nothing_to_tell(served: list[Receiver], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has everything is not told, and where nobody is to be told no process starts."""
    one, other = receivers_of([served[0].url, served[1].url])
    assert await told([(one, []), (other, [FIRST])], patience=30) == [Told(2, 1, None)]
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    assert await told([(one, []), (other, [])], patience=30) == []


async def test_trickling(served: list[Receiver]) -> None:
    """Receivers that trickle for ever, however many, end with the round; another one is told."""
    *trickling, well = served
    for receiver in trickling:
        receiver.trickles = True
    before = children()
    parties = receivers_of([receiver.url for receiver in served])
    ends = await told([(party, [FIRST]) for party in parties], patience=3)
    assert ends[0] == Told(len(served), 1, None)
    assert ends[1:] == [
        Told(position, 1, f"URL {position} gave no answer within 3 s")
        for position in range(1, len(served))
    ]
    assert [heard["title"] for heard in well.heard] == ["first"]
    assert children() == before


async def test_endless(served: list[Receiver]) -> None:
    """An answer without end fills the memory of the process that tells, which is bounded."""
    endless, well = served[:2]
    endless.endless = True
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            for pid in children():
                _, is_there, rest = of_process(pid, "status").partition("VmHWM:")
                most = max(most, int(rest.split()[0]) if is_there else 0)
            await asyncio.sleep(0.02)

    parties = receivers_of([endless.url, well.url])
    watching = asyncio.create_task(watch())
    ends = await told([(party, [FIRST]) for party in parties], patience=60)
    watching.cancel()
    assert Told(2, 1, None) in ends
    (failed,) = [end for end in ends if end.fault is not None]
    assert failed.position == 1
    assert 0 < most < receivers_module.MEMORY // 1024 + 64 * 1024


@pytest.mark.parametrize("program", ["/nonexistent/python", "/bin/true"])
async def test_no_process(
    program: str, served: list[Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process cannot be started, or dies, that is the fault of each message."""
    monkeypatch.setattr("sys.executable", program)
    (end,) = await told([(receivers_of([served[0].url])[0], [FIRST])], patience=30)
    assert (end.position, end.number) == (1, 1)
    assert end.fault is not None
    assert end.fault.startswith("URL 1 was not told: the process that tells failed (")


async def test_secrets(served: list[Receiver]) -> None:
    """While somebody is told, no argument of the process holds a URL; a stop ends it at once."""
    served[0].open.clear()
    before = children()
    parties = receivers_of([served[0].url])
    telling = asyncio.create_task(told([(parties[0], [FIRST])], patience=60))
    assert await asyncio.to_thread(served[0].entered.acquire, timeout=20)
    (pid,) = children() - before
    assert PASSWORD not in of_process(pid, "cmdline")
    assert of_process(pid, "oom_score_adj") == "1000\n"
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert pid not in children()
