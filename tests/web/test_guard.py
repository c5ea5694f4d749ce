"""What `web.guard` promises: who may ask what, under which name, how often, how many at a time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from aiohttp import web

from syncd.web.backend import HttpLimits
from tests.fakes.registry import Registry
from tests.harness import TOKEN, Harness, described
from tests.web.sockets import Peer, peer

PATHS = ["/", "/metrics", "/api/v1/jobs", "/nowhere", "/healthz", "/webhooks/github"]


@pytest.mark.parametrize("path", PATHS)
async def test_browsers(path: str, tmp_path: Path, registry: Registry) -> None:
    """Every answer forbids scripts, frames, guesses, and copies, whatever it answers."""
    async with Harness(tmp_path, registry) as harness:
        for token in (TOKEN, None):
            answer = await harness.ask("GET", path, token=token)
            policy = answer.headers["Content-Security-Policy"].split("; ")
            assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= {*policy}
            assert "unsafe" not in str(policy)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Server"] == "syncd"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_malformed_is_protected(tmp_path: Path, registry: Registry) -> None:
    """The answer to a malformed request has the same headers."""
    async with Harness(tmp_path, registry) as harness, peer(harness) as one:
        one.send("nonsense\n\n")
        assert "Content-Security-Policy: default-src 'none'" in await one.head()


@pytest.mark.parametrize("tag", ["style", "script"])
async def test_style_and_script_of_the_page(tag: str, tmp_path: Path, registry: Registry) -> None:
    """The page's own style and script are allowed by their hashes, and it has one of each."""
    async with Harness(tmp_path, registry) as harness:
        answer = await harness.ask("GET", "/", token=None)
        page = await answer.text()
        (content,) = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in answer.headers["Content-Security-Policy"]


HERE = [
    "localhost",
    "LOCALHOST:8750",
    "127.0.0.1",
    "127.0.0.1:1",
    os.uname().nodename,
    "localhost.",
]
ELSEWHERE = ["evil.example", "evil.example:8750", "127.0.0.1.evil.example", "10.1.2.3", "[::1]", "",
             "localhost.evil.example", "a b", "[", "localhost:x", "x" * 300]  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/jobs", "/nowhere"])
async def test_hosts(path: str, tmp_path: Path, registry: Registry) -> None:
    """A page that led a browser here under its own name reads nothing (DNS rebinding)."""
    async with Harness(tmp_path, registry) as harness:
        for hosts, misdirected in ((HERE, False), (ELSEWHERE, True)):
            for host in hosts:
                async with peer(harness) as one:
                    one.send(
                        f"GET {path} HTTP/1.1\nHost: {host}\nAuthorization: Bearer {TOKEN}\n\n"
                    )
                    assert (await one.status() == 421) is misdirected, host


async def test_several_hosts(tmp_path: Path, registry: Registry) -> None:
    """A request without a Host, or with two, is for nobody."""
    async with Harness(tmp_path, registry) as harness:
        for hosts in ("", "Host: localhost\nHost: localhost\n"):
            async with peer(harness) as one:
                one.send(f"GET / HTTP/1.0\n{hosts}\n")
                assert await one.status() in (400, 421)


async def test_configured_names(tmp_path: Path, registry: Registry) -> None:
    """The configured names count, in place of the host's own."""
    names = 'names = ["Syncd.example.org", "192.0.2.7", "[2001:db8::1]"]'
    fits = ["syncd.example.org", "SYNCD.example.org:443", "192.0.2.7:80", "[2001:DB8::1]:8750"]
    async with Harness(tmp_path, registry, server=names) as harness:
        for host in (*fits, "localhost", "127.0.0.1"):
            answer = await harness.ask("GET", "/", headers={"Host": host})
            assert answer.status == 200, host
        for host in (os.uname().nodename, "example.org", "a.syncd.example.org"):
            answer = await harness.ask("GET", "/", headers={"Host": host})
            assert "server.names" in described(answer, "/")["error"]


async def test_any_host(tmp_path: Path, registry: Registry) -> None:
    """Deliveries, which are signed, and probes may come by any name."""
    async with Harness(tmp_path, registry) as harness:
        status, _ = await harness.deliver(b"{}", "ping", Host="hooks.example.org")
        assert status == 200
        for path in ("/healthz", "/readyz"):
            assert (await harness.ask("GET", path, headers={"Host": "x"})).status == 200


@pytest.mark.parametrize("path", ["/", "/metrics"])
async def test_readers(path: str, tmp_path: Path, registry: Registry) -> None:
    """A few readers are served at a time; the next one is told when to come again."""
    limits = HttpLimits(readers=3)
    async with Harness(tmp_path, registry, limits=limits) as harness:
        async with AsyncExitStack() as crowd:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(harness.services.metrics, "exposition", lambda _: bytes(30 << 20))
                for _ in range(3):
                    slow = await crowd.enter_async_context(peer(harness))
                    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
                    slow.send("GET /metrics HTTP/1.1\nHost: localhost\n\n")
                await asyncio.sleep(0.3)
            answer = await harness.ask("GET", path, token=None)
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert (await harness.ask("GET", "/healthz")).status == 200
        await asyncio.sleep(0.1)
        assert (await harness.ask("GET", path)).status == 200


async def test_guesses(tmp_path: Path, registry: Registry) -> None:
    """Wrong tokens are slowed and told in the log; no token is no guess; the right one works."""
    with structlog.testing.capture_logs() as logs:
        async with Harness(tmp_path, registry) as harness:
            for _ in range(9):
                answer = await harness.ask("GET", "/api/v1/jobs", token=None)
                assert answer.status == 401
            statuses = []
            for _ in range(9):
                answer = await harness.ask("GET", "/api/v1/jobs", token="wrong")
                described(answer, "/api/v1/jobs")
                statuses.append(answer.status)
            assert statuses == [401] * 4 + [429] * 5
            assert int(answer.headers["Retry-After"]) == 1
            assert (await harness.ask("GET", "/api/v1/jobs")).status == 200
            assert (await harness.deliver(b"{}", "ping"))[0] == 200
    told = [line for line in logs if line["event"] == "wrong token"]
    assert [line["times"] for line in told] == [1, 2, 3, 4, 5]
    assert {line["peer"] for line in told} == {"loopback"}
    assert "wrong'" not in str([{**line, "event": ""} for line in told])


def test_few() -> None:
    """The number of readers is small, and not zero."""
    assert 1 <= HttpLimits().readers <= 8


async def test_a_reader_that_does_not_read(tmp_path: Path, registry: Registry) -> None:
    """A reader keeps its place until it has its answer, and loses it with its connection."""
    limits = HttpLimits(readers=1, answer=0.6)
    async with Harness(tmp_path, registry, limits=limits) as harness, peer(harness) as slow:
        metrics = harness.services.metrics
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "exposition", lambda _: bytes(30 << 20))
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send("GET /metrics HTTP/1.1\nHost: localhost\n\n")
            await asyncio.sleep(0.2)
        assert (await harness.ask("GET", "/metrics")).status == 503
        await asyncio.sleep(0.7)
        assert (await harness.ask("GET", "/metrics")).status == 200


async def test_unix_socket(tmp_path: Path, registry: Registry) -> None:
    """Over a Unix socket every name is meant: no page on the Web gets there."""
    async with Harness(tmp_path, registry) as harness:
        runner = harness.client.server.runner
        assert runner is not None
        await web.UnixSite(runner, tmp_path / "socket").start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        one = Peer(reader, writer)
        one.send("GET / HTTP/1.1\nHost: evil.example\nConnection: close\n\n")
        assert await one.status() == 200
        writer.close()
        await writer.wait_closed()


async def test_one_token_for_both(tmp_path: Path, registry: Registry) -> None:
    """Where both settings name one token, it may do everything."""
    server = f'settle = "0s"\nsync_token_file = "{tmp_path}/api-token"'
    async with Harness(tmp_path, registry, server=server) as harness:
        assert (await harness.ask("GET", "/api/v1/jobs")).status == 200
