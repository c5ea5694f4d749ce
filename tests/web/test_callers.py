"""What `callers` promises: over the daemon's own socket the user counts, and nobody else does."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web

from syncd.web import callers
from syncd.web.app import application, http_runner
from syncd.web.callers import Peer
from syncd.web.scopes import EVERYTHING, TO_SYNC, Scope
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, sample

OWN = os.geteuid()
NOBODY = 65534


@pytest.mark.parametrize(
    ("uid", "groups", "group", "scopes"),
    [
        (0, {0}, None, EVERYTHING),
        (OWN, {1000}, None, EVERYTHING),
        (4711, {4711, 999}, 999, TO_SYNC),
        (4711, {999}, 999, TO_SYNC),
        (4711, {4711}, 999, frozenset()),
        (4711, {4711, 999}, None, frozenset()),
        # Whoever has no name in the service's user namespace appears as nobody.
        (NOBODY, {NOBODY}, NOBODY, frozenset()),
        (NOBODY, {NOBODY, 999}, 999, TO_SYNC),
    ],
)
def test_scopes(uid: int, groups: set[int], group: int | None, scopes: frozenset[Scope]) -> None:
    """Root and the service's user may do everything, members look and sync, others nothing."""
    assert Peer(uid, frozenset(groups)).scopes(group) == scopes


def test_nobody_is_not_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that runs as nobody does not take everybody for itself."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert Peer(NOBODY, frozenset()).scopes(None) == frozenset()


def test_what_the_kernel_says() -> None:
    """The peer of a socket is this process, with all its groups."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        assert Peer.of(one) == Peer(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


@asynccontextmanager
async def over(harness: Harness, path: Path) -> AsyncIterator[ClientSession]:
    """Serve the harness's services on a Unix socket, too, and speak over it."""
    runner = http_runner(application(harness.services))
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    connector = UnixConnector(str(path))
    async with ClientSession("http://localhost", connector=connector) as session:
        yield session
    await runner.cleanup()


async def asked(session: ClientSession, method: str, path: str, **body: Any) -> tuple[int, str]:
    """Make a request; return status and text."""
    async with session.request(method, f"/api/v1/{path}", json=body or None) as answer:
        return answer.status, await answer.text()


async def test_owner(tmp_path: Path, registry: Registry) -> None:
    """The service's own user needs no token, and may do everything."""
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        path = harness.services.live.config.socket
        async with over(harness, path) as session:
            status, text = await asked(session, "GET", "daemon")
            assert (status, json.loads(text)["pid"]) == (200, os.getpid())
            assert json.loads(text)["state"] == f"{tmp_path}/state"
            assert (await asked(session, "POST", "sync", ref="a.b/c:d"))[0] == 202
            assert (await asked(session, "GET", "jobs?wait=31"))[0] == 200


async def test_member(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member looks, and syncs what is watched; all else is for root."""
    monkeypatch.setattr(callers.Peer, "scopes", lambda *_: TO_SYNC)
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        name = str(harness.repository)
        async with over(harness, harness.services.live.config.socket) as session:
            tried: list[tuple[str, str, dict[str, Any], int]] = [
                ("GET", "jobs", {}, 200),
                ("GET", "images", {}, 200),
                ("GET", "nowhere", {}, 404),
                ("POST", "sync", {}, 202),
                ("POST", "sync", {"refs": [f"{name}:latest"], "each": True}, 202),
                ("POST", "sync", {"ref": f"{name}:other"}, 403),
                ("POST", "sync", {"ref": "a.b/c:d", "dry_run": True}, 403),
                ("GET", f"resolve?ref={name}&pull=1", {}, 200),
                ("GET", "resolve?ref=a.b/c", {}, 403),
                ("POST", "verify", {}, 200),
                ("POST", "pin", {"volume": "a"}, 403),
                ("POST", "prune", {}, 403),
                ("POST", "containers", {"ref": name, "hostname": "web"}, 403),
                ("POST", "containers/100/replace", {}, 403),
                ("POST", "nowhere", {}, 403),
                ("DELETE", "jobs", {}, 403),
            ]
            for method, path, body, status in tried:
                told = await asked(session, method, path, **body)
                assert told[0] == status, (method, path, told)


async def test_stranger(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is neither is refused, with a token too: over this socket only the user counts."""
    monkeypatch.setattr(callers.Peer, "scopes", lambda *_: frozenset())
    async with (
        Harness(tmp_path, registry) as harness,
        over(harness, harness.services.live.config.socket) as session,
    ):
        session.headers["Authorization"] = "Bearer a token of the API"
        assert await asked(session, "GET", "jobs") == (
            403,
            '{"error": "over the Unix socket this is for root and the members of the group syncd"}',
        )


async def test_another_unix_socket(tmp_path: Path, registry: Registry) -> None:
    """Over any other Unix socket, a reverse proxy's, the token counts as over TCP."""
    async with (
        Harness(tmp_path, registry) as harness,
        over(harness, tmp_path / "proxy.sock") as session,
    ):
        assert (await asked(session, "GET", "jobs"))[0] == 401
        session.headers["Authorization"] = "Bearer a token of the API"
        assert (await asked(session, "GET", "jobs"))[0] == 200
