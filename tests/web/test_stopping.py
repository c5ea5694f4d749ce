"""What `web.connections` promises of a stop: what was accepted is answered, then it is closed."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from syncd.web.backend import HttpLimits
from syncd.web.connections import Runner

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GRACE = HttpLimits().grace


async def hello(request: web.Request) -> web.Response:
    """Answer with the request's body."""
    return web.Response(body=await request.read())


async def serve(
    listening: socket.socket, handler: Handler = hello, grace: float = GRACE
) -> web.AppRunner:
    """Serve `handler` on a socket that outlives the server, as systemd's does."""
    app = web.Application()
    app.add_routes([web.route("*", "/", handler)])
    runner = Runner(app, HttpLimits(grace=grace))
    await runner.setup()
    inherited = listening.dup()
    inherited.setblocking(False)
    await web.SockSite(runner, inherited).start()
    return runner


@pytest.fixture
async def listening() -> AsyncIterator[socket.socket]:
    """Give a listening socket on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@asynccontextmanager
async def connected(
    listening: socket.socket,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the server."""
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Read an answer's status line and headers."""
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n")


async def test_each_connection_is_answered(listening: socket.socket) -> None:
    """Clients that connect all the while a server gives way to the next are all answered.

    Some send at once, and some a little after they were accepted.
    """
    chance = random.Random(13)
    over = asyncio.Event()
    answers: list[bytes] = []

    async def client() -> None:
        while not over.is_set():
            async with connected(listening) as (reader, writer):
                await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02, 0.1]))
                writer.write(ASK)
                answers.append((await answer(reader)).splitlines()[0])

    runner = await serve(listening)
    async with asyncio.TaskGroup() as clients:
        for _ in range(40):
            clients.create_task(client())
        for _ in range(5):
            await asyncio.sleep(0.1)
            await runner.cleanup()
            runner = await serve(listening)
        over.set()
    await runner.cleanup()
    assert set(answers) == {b"HTTP/1.1 200 OK"}
    assert len(answers) > 500


@pytest.mark.parametrize("turns", range(6))
async def test_accepted_in_the_last_turn(turns: int, listening: socket.socket) -> None:
    """Whatever the loop has just done with a connection, one of both processes answers it."""
    ended = False

    async def before_the_end(_: web.Request) -> web.Response:
        return web.Response(status=500 if ended else 200)

    runner = await serve(listening, before_the_end)
    loop = asyncio.get_running_loop()
    clients = [socket.create_connection(listening.getsockname()) for _ in range(20)]
    for client in clients:
        client.setblocking(False)
        await loop.sock_sendall(client, ASK)
    for _ in range(turns):
        await asyncio.sleep(0)
    await runner.cleanup()
    ended = True
    runner = await serve(listening)
    for client in clients:
        async with asyncio.timeout(5):
            assert (await loop.sock_recv(client, 99)).startswith(b"HTTP/1.1 200 OK")
        client.close()
    await runner.cleanup()


async def test_a_body_under_way(listening: socket.socket) -> None:
    """A request whose body is still arriving is answered, and told that the connection ends."""
    runner = await serve(listening)
    async with connected(listening) as (reader, writer), connected(listening):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nwh")
        await asyncio.sleep(0.05)
        stopped = asyncio.create_task(runner.cleanup())
        await asyncio.sleep(0.1)
        writer.write(b"at")
        head = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Connection: close" in head
        assert await reader.read() == b"what"
        assert not stopped.done()  # another connection is still waited for
    begun = time.monotonic()
    await stopped
    assert time.monotonic() - begun < GRACE / 2  # and it is gone


async def test_a_second_body_under_way(listening: socket.socket) -> None:
    """A connection that had an answer is waited for while a further request is under way."""
    runner = await serve(listening)
    async with connected(listening) as (reader, writer):
        writer.write(ASK)
        await answer(reader)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nwh")
        await asyncio.sleep(0.05)
        stopped = asyncio.create_task(runner.cleanup())
        await asyncio.sleep(0.1)
        writer.write(b"at")
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 OK")
        await stopped


async def test_an_idle_connection_is_not_waited_for(listening: socket.socket) -> None:
    """A connection that had its answer and asks nothing more does not hold up the end."""
    runner = await serve(listening)
    async with connected(listening) as (reader, writer):
        writer.write(ASK)
        assert b"Connection: close" not in await answer(reader)
        begun = time.monotonic()
        await runner.cleanup()
        assert time.monotonic() - begun < GRACE / 2
        assert await reader.read() == b""


async def test_a_silent_connection_is_waited_for_a_little(listening: socket.socket) -> None:
    """A connection that never asks is closed when the grace is over."""
    runner = await serve(listening, grace=0.3)
    async with connected(listening) as (reader, _):
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await runner.cleanup()
        assert 0.3 <= time.monotonic() - begun < 1
        assert await reader.read() == b""


def test_grace() -> None:
    """The grace leaves peers time to send what they have, and the service time to end."""
    assert 1 <= GRACE <= 3
