"""What `web.connections` promises of peers that nobody has authenticated."""

from __future__ import annotations

import asyncio
import gzip
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog

from syncd.web.backend import HttpLimits
from tests.deliveries import signed
from tests.fakes.registry import Registry
from tests.harness import TOKEN, Harness, described
from tests.memory import Growth
from tests.web.sockets import as_strangers, peer

PING = "HEAD /healthz HTTP/1.1\nHost: localhost\n\n"


def bomb() -> bytes:
    """Return a gigabyte of zeros as a megabyte of gzip: one member, repeated."""
    return gzip.compress(bytes(16 << 20)) * 64


@pytest.mark.parametrize("path", ["/webhooks/github", "/api/v1/sync", "/", "/healthz"])
async def test_nothing_is_inflated(path: str, tmp_path: Path, registry: Registry) -> None:
    """A body that would inflate to 1 GB costs no memory and stalls nobody, wherever it is sent."""
    body = bomb()
    async with Harness(tmp_path, registry) as harness:
        growth = Growth()
        headers = {"Content-Encoding": "gzip"}
        sent = [
            asyncio.create_task(harness.ask("POST", path, data=body, headers=headers))
            for _ in range(6)
        ]
        slowest = 0.0
        while not all(task.done() for task in sent):
            begun = time.monotonic()
            assert (await harness.ask("GET", "/healthz")).status == 200
            slowest = max(slowest, time.monotonic() - begun)
        assert {task.result().status for task in sent} <= {405, 415}
        assert growth.now() < 64 << 20  # the six bodies themselves are on both sides
        assert slowest < 1


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, br", "x"])
async def test_coded_bodies(coding: str, tmp_path: Path, registry: Registry) -> None:
    """An encoded body is 415, by its header alone, and JSON says so; identity is no encoding."""
    async with Harness(tmp_path, registry) as harness:
        for path, headers in [
            ("/webhooks/github", signed(b"{}", "ping")),
            ("/api/v1/sync", {}),
        ]:
            for name, status in ((coding, 415), ("identity", 0)):
                sent = headers | {"Content-Encoding": name}
                answer = await harness.ask("POST", path, data=b"{}", headers=sent)
                if status:
                    assert answer.status == status
                    assert "Content-Encoding" in described(answer, path)["error"]
                else:
                    assert answer.status in (200, 202)


async def test_token_before_coding(tmp_path: Path, registry: Registry) -> None:
    """A stranger with an encoded body is told of the token, and of nothing else."""
    async with Harness(tmp_path, registry) as harness:
        headers = {"Content-Encoding": "gzip"}
        answer = await harness.ask("POST", "/api/v1/sync", token="no", data=b"x", headers=headers)
        assert answer.status == 401


@pytest.mark.parametrize("sent", ["", "GET / HTT", PING[:-1], "POST /webhooks/github HTTP/1.1\nA:"])
async def test_half_sent_headers(sent: str, tmp_path: Path, registry: Registry) -> None:
    """A connection whose first headers do not come is closed, however slowly they drip."""
    limits = HttpLimits(headers=0.4)
    async with Harness(tmp_path, registry, limits=limits) as harness, peer(harness) as one:
        one.send(sent)
        assert not await one.closed(0.3)
        one.send("X")
        assert await one.closed(0.3)


async def test_idle_connections(tmp_path: Path, registry: Registry) -> None:
    """A connection that was answered and asks nothing more is closed; one that asks stays."""
    limits = HttpLimits(headers=0.3, idle=0.5)
    async with Harness(tmp_path, registry, limits=limits) as harness, peer(harness) as one:
        for _ in range(4):
            one.send(PING)
            assert await one.status() == 200
            await asyncio.sleep(0.2)
        assert await one.closed(0.6)


def test_seconds() -> None:
    """Half-sent headers and idle connections end after seconds."""
    assert HttpLimits().headers <= 10
    assert HttpLimits().idle <= 30


async def test_too_many_connections(tmp_path: Path, registry: Registry) -> None:
    """The oldest connection that asks nothing goes for a further one; the log says it once."""
    limits = HttpLimits(connections=20)
    with structlog.testing.capture_logs() as logs:
        async with (
            Harness(tmp_path, registry, limits=limits) as harness,
            AsyncExitStack() as crowd,
        ):
            silent = [await crowd.enter_async_context(peer(harness)) for _ in range(50)]
            await asyncio.sleep(0.1)
            assert [await one.closed(0.02) for one in silent] == [True] * 30 + [False] * 20
            async with peer(harness) as one:
                one.send(PING)
                assert await one.status() == 200
    told = [line for line in logs if line["event"] == "too many connections"]
    assert [line["open"] for line in told] == [20]


async def test_too_many_requests(tmp_path: Path, registry: Registry) -> None:
    """A connection whose request is under way never goes for a new one: the new one is refused."""
    limits = HttpLimits(connections=3, body_start=60, body_time=60)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        several = [await crowd.enter_async_context(peer(harness)) for _ in range(3)]
        for one in several:
            one.send("POST /webhooks/github HTTP/1.1\nHost: x\nContent-Length: 2\n\n{")
        await asyncio.sleep(0.1)
        late = await crowd.enter_async_context(peer(harness))
        assert await late.status() == 503
        assert await late.closed(1)
        for one in several:
            one.send("}")
            assert await one.status() == 401


async def test_connections_of_one_address(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One address takes its own connections away only, and those of others stay."""
    as_strangers(monkeypatch)
    limits = HttpLimits(connections=20, connections_each=3)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        quiet = await crowd.enter_async_context(peer(harness, "127.0.0.3"))
        await asyncio.sleep(0.05)
        crowded = [await crowd.enter_async_context(peer(harness, "127.0.0.2")) for _ in range(9)]
        await asyncio.sleep(0.1)
        assert [await one.closed(0.02) for one in crowded] == [True] * 6 + [False] * 3
        assert not await quiet.closed(0.02)


async def test_connections_of_loopback(tmp_path: Path, registry: Registry) -> None:
    """Loopback, where a reverse proxy is, may open as many connections as there may be."""
    limits = HttpLimits(connections=20, connections_each=3)
    async with Harness(tmp_path, registry, limits=limits) as harness, AsyncExitStack() as crowd:
        several = [await crowd.enter_async_context(peer(harness)) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert [await one.closed(0.02) for one in several] == [False] * 20


async def test_answers_that_nobody_takes(tmp_path: Path, registry: Registry) -> None:
    """A peer that asks and asks and reads no answer loses its connection."""
    limits = HttpLimits(answer=0.3)
    async with Harness(tmp_path, registry, limits=limits) as harness, peer(harness) as one:
        asked = (
            f"GET /api/v1/openapi.json HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n\n"
        )
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        one.send(asked * 2000)
        await asyncio.sleep(0.1)
        server = harness.client.server.runner.server  # type: ignore[union-attr]
        assert server is not None
        assert server.connections
        async with asyncio.timeout(15):
            while server.connections:  # noqa: ASYNC110  # its end has no event on this side
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", ["/api/v1/sync", "/api/v1/nowhere", "/nowhere", "/"])
async def test_body_that_nobody_asked_for(path: str, tmp_path: Path, registry: Registry) -> None:
    """A stranger is not told to go on with a body that nobody will read."""
    async with Harness(tmp_path, registry) as harness, peer(harness) as one:
        one.send(
            f"POST {path} HTTP/1.1\nHost: localhost\nExpect: 100-continue\nContent-Length: 9\n\n"
        )
        assert await one.status() in (401, 404, 405)


async def test_body_that_is_asked_for(tmp_path: Path, registry: Registry) -> None:
    """A peer that holds back its body is told to send it, by whoever reads it."""
    async with Harness(tmp_path, registry) as harness:
        for path, status in (("/webhooks/github", 401), ("/api/v1/sync", 202)):
            async with peer(harness) as one:
                one.send(
                    f"POST {path} HTTP/1.1\nHost: localhost\nExpect: 100-Continue\n"
                    f"Authorization: Bearer {TOKEN}\nContent-Length: 2\n\n"
                )
                assert await one.status() == 100
                one.send("{}")
                assert await one.status() == status


@pytest.mark.parametrize("path", ["/webhooks/github", "/api/v1/sync", "/nowhere", "/"])
async def test_other_expectations(path: str, tmp_path: Path, registry: Registry) -> None:
    """Whatever else a peer expects is refused with 417; HTTP/1.0 has no expectations."""
    async with Harness(tmp_path, registry) as harness:
        for version, statuses in (("1.1", (417,)), ("1.0", (401, 404, 405))):
            async with peer(harness) as one:
                one.send(f"POST {path} HTTP/{version}\nHost: localhost\nExpect: {'x' * 99}\n\n")
                assert await one.status() in statuses


@pytest.mark.parametrize(
    "sent",
    ["nonsense\n\n", "GET / HTTP/1.1\nHost: x\n: y\n\n", "\x16\x03\x01\x02\x00", "GET /\x00\n\n",
     "GET / HTTP/1.1\nHost: x\nX: " + "secret" * 3000 + "\n\n",
     "GET / HTTP/1.1\nHost: x\nX: " + "y" * 2000 + "\x00\n\n",
     "GET / HTTP/1.1\nHost: x\n" + "X: y\n" * 100 + "\n"],
)  # fmt: skip
async def test_malformed(
    sent: str, tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A malformed request is one short line of the log, and its answer repeats nothing of it."""
    with structlog.testing.capture_logs() as logs:
        async with Harness(tmp_path, registry) as harness, peer(harness) as one:
            one.send(sent)
            assert await one.status() == 400
            async with asyncio.timeout(5):
                assert await one.reader.read() == b"the request is malformed\n"
    (line,) = [line for line in logs if line["event"] == "malformed request"]
    assert len(str(line)) < 300
    assert caplog.records == []


async def test_many_malformed(tmp_path: Path, registry: Registry) -> None:
    """Malformed requests by the hundred are ten lines a minute."""
    with structlog.testing.capture_logs() as logs:
        async with Harness(tmp_path, registry) as harness:
            for _ in range(100):
                async with peer(harness) as one:
                    one.send("nonsense\n\n")
                    assert await one.status() == 400
    assert len([line for line in logs if line["event"] == "malformed request"]) == 10


async def test_a_peer_that_goes_away(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that goes away in the middle of a body leaves no traceback in the log."""
    with structlog.testing.capture_logs() as logs:
        async with Harness(tmp_path, registry) as harness:
            async with peer(harness) as one:
                one.send("POST /webhooks/github HTTP/1.1\nHost: x\nContent-Length: 2\n\n{")
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
    assert caplog.records == []
    assert logs == []
