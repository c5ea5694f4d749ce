"""What `web.bodies` promises: bounded bytes, bounded time, and nobody waits for a silent peer."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from syncd.web.backend import HttpLimits
from tests.deliveries import signed
from tests.fakes.registry import Registry
from tests.harness import TOKEN, Harness
from tests.web.sockets import Peer, as_strangers, peer

MIB = 1 << 20


def head(length: int, path: str = "/webhooks/github", more: str = "") -> str:
    """Return the head of a request that announces a body."""
    return (
        f"POST {path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n{more}"
        f"Content-Length: {length}\n\n"
    )


async def hold(
    crowd: AsyncExitStack, harness: Harness, size: int, address: str = "127.0.0.1"
) -> Peer:
    """Send a body but for its last byte, until the server holds what was sent."""
    one = await crowd.enter_async_context(peer(harness, address))
    one.send(head(size + 1))
    one.send(bytes(size))
    await one.writer.drain()
    await asyncio.sleep(0.3)
    return one


async def test_silent_bodies(tmp_path: Path, registry: Registry) -> None:
    """A hundred bodies that are announced and never sent deny no delivery, and end as 408."""
    limits = HttpLimits(body_start=0.5)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        silent = [await crowd.enter_async_context(peer(harness)) for _ in range(100)]
        for one in silent:
            one.send(head(25 * MIB))
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        assert (await harness.deliver(b"{}", "ping"))[0] == 200
        assert time.monotonic() - begun < 0.3
        assert {await one.status() for one in silent} == {408}


async def test_chunked(tmp_path: Path, registry: Registry) -> None:
    """A body of no announced length is refused where it becomes too large."""
    limits = HttpLimits(body=10)
    async with Harness(tmp_path, registry, limits=limits) as harness, peer(harness) as one:
        one.send("POST /webhooks/github HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n")
        one.send("a\n0123456789\n")
        with pytest.raises(TimeoutError):
            await one.status(0.2)
        one.send("1\n0\n")
        assert await one.status() == 413


async def test_minimum_rate(tmp_path: Path, registry: Registry) -> None:
    """A body that drips is given up soon; one that keeps the rate is read."""
    limits = HttpLimits(body_start=0.3, body_rate=1000)
    body = b"{}" + b" " * 998
    headers = "".join(f"{key}: {value}\n" for key, value in signed(body, "ping").items())
    async with (
        Harness(tmp_path, registry, limits=limits) as harness,
        peer(harness) as slow,
        peer(harness) as steady,
    ):
        slow.send(head(1000))
        steady.send(head(1000, more=headers))
        for at in range(10):
            slow.send(b"1")
            steady.send(body[at * 100 :][:100])
            await asyncio.sleep(0.07)
        assert await slow.status(0.1) == 408
        assert await steady.status(0.5) == 200


async def test_time_as_a_whole(tmp_path: Path, registry: Registry) -> None:
    """A body that keeps the rate and never ends is given up all the same."""
    limits = HttpLimits(body_start=0.3, body_rate=1, body_time=0.6)
    async with Harness(tmp_path, registry, limits=limits) as harness, peer(harness) as endless:
        endless.send(head(MIB))
        begun = time.monotonic()
        for _ in range(8):
            endless.send(bytes(100))
            await asyncio.sleep(0.05)
        assert await endless.status() == 408
        assert 0.5 < time.monotonic() - begun < 1.5


async def test_all_bodies(tmp_path: Path, registry: Registry) -> None:
    """What is held of all bodies is bounded; who waits in vain is told when to come again."""
    limits = HttpLimits(body=MIB, bodies=2 * MIB, body_wait=0.5, body_time=60, body_start=60)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        await hold(crowd, harness, MIB - 1)
        await hold(crowd, harness, MIB - 1)
        late = await crowd.enter_async_context(peer(harness))
        late.send(head(9))
        late.send(b"too late!")
        answer = await late.head(3)
        assert answer.startswith("HTTP/1.1 503")
        assert "Retry-After: 10" in answer


async def test_waiting_takes_no_time(tmp_path: Path, registry: Registry) -> None:
    """The wait for room is no part of a body's own time, and ends when the room is free."""
    limits = HttpLimits(body=MIB, bodies=2 * MIB, body_start=0.5, body_rate=64 << 10)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        held = [await hold(crowd, harness, MIB - 1), await hold(crowd, harness, MIB - 1)]
        late = await crowd.enter_async_context(peer(harness))
        late.send(head(4))
        late.send("la")
        await asyncio.sleep(1)
        for one in held:
            one.writer.close()
        await asyncio.sleep(0.1)
        late.send("te")
        assert await late.status(1) == 401


async def test_large_bodies_side_by_side(tmp_path: Path, registry: Registry) -> None:
    """Bodies that are too large for the room together do not wait for each other for ever."""
    limits = HttpLimits(body=MIB, bodies=2 * MIB)
    async with Harness(tmp_path, registry, limits=limits) as harness:
        body = json.dumps({"zen": "x" * (MIB - 100)}).encode()
        answers = await asyncio.gather(
            *(harness.deliver(body, "ping", delivery=str(n)) for n in range(12))
        )
        assert {status for status, _ in answers} == {200}


async def test_bodies_of_one_address(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One address takes no more than its part of the room, and the others have theirs."""
    as_strangers(monkeypatch)
    limits = HttpLimits(
        body=MIB, bodies=6 * MIB, bodies_each=2 * MIB, body_wait=0.5, body_time=60, body_start=60
    )
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        for _ in range(2):
            await hold(crowd, harness, MIB - 1, "127.0.0.2")
        for address, status in (("127.0.0.2", 503), ("127.0.0.3", 401)):
            one = await crowd.enter_async_context(peer(harness, address))
            one.send(head(2))
            one.send(b"{}")
            assert await one.status() == status


async def test_bodies_of_loopback(tmp_path: Path, registry: Registry) -> None:
    """Loopback, where a reverse proxy is, may take all the room."""
    limits = HttpLimits(body=MIB, bodies=6 * MIB, bodies_each=2 * MIB, body_time=60, body_start=60)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        for _ in range(4):
            await hold(crowd, harness, MIB - 1)
        assert (await harness.deliver(b"{}", "ping"))[0] == 200


async def test_bodies_of_the_api(tmp_path: Path, registry: Registry) -> None:
    """What the API reads is bounded in the same way."""
    async with Harness(tmp_path, registry, limits=HttpLimits(body_start=0.2)) as harness:
        async with peer(harness) as slow:
            slow.send(head(99, "/api/v1/sync"))
            assert await slow.status() == 408
        async with peer(harness) as large:
            large.send(head(HttpLimits().body + 1, "/api/v1/sync"))
            assert await large.status() == 413


def test_defaults() -> None:
    """The default bounds are those of the security model, and within GitHub's patience of 10 s."""
    limits = HttpLimits()
    assert (limits.bodies, limits.bodies_each) == (64 * MIB, 32 * MIB)
    assert limits.body <= limits.bodies_each
    assert (limits.body_start, limits.body_rate) == (2, 16384)
    assert limits.body_wait < 10
    assert limits.body_time < 10
