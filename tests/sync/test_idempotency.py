"""A creation that names a key is done once, however often it is asked for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncd.sync.idempotency import _digest
from tests.clusters import LAUNCHING, token_for, when_asked
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, cluster_table, described, sample


@pytest.fixture
def token(pve: Pve) -> Token:
    return token_for(pve, LAUNCHING)


@pytest.fixture
def table(pve: Pve, token: Token, registry: Registry, tmp_path: Path) -> str:
    registry.push(REPOSITORY, "latest", sample())
    return cluster_table(tmp_path, pve, token)


@pytest.fixture
async def harness(table: str, registry: Registry, tmp_path: Path) -> AsyncIterator[Harness]:
    """Watch one image that goes to the cluster."""
    async with Harness(tmp_path, registry, image='targets = ["cluster"]', more=table) as harness:
        yield harness


async def create(harness: Harness, key: str = "one", **fields: Any) -> tuple[int, Any]:
    body = {"ref": str(harness.latest), "hostname": "web", "node": "pve1"} | fields
    headers = {"Idempotency-Key": key}
    answer = await harness.ask("POST", "/api/v1/containers", json=body, headers=headers)
    return answer.status, described(answer, "/api/v1/containers")


def creations(pve: Pve) -> int:
    return len([r for r in pve.requests if r.method == "POST" and r.path.endswith("/lxc")])


async def test_same_answer(pve: Pve, harness: Harness) -> None:
    """The same key has the same answer, another key another container."""
    first = await create(harness, start=True)
    assert first[0] == 201
    assert await create(harness, start=True) == first
    assert creations(pve) == 1
    assert (await create(harness, key="two", start=True))[1]["vmid"] == 101


async def test_at_a_time(pve: Pve, harness: Harness) -> None:
    """Requests of one key at a time wait for one creation."""
    answers = await asyncio.gather(*(create(harness) for _ in range(4)))
    assert {status for status, _ in answers} == {201}
    assert {made["vmid"] for _, made in answers} == {100}
    assert creations(pve) == 1


@pytest.mark.parametrize("fields", [{"cores": 2}, {"hostname": "db"}, {"password": "correct"}])
async def test_another_body(pve: Pve, harness: Harness, fields: dict[str, Any]) -> None:
    """A key that came with another body is 422, and makes nothing."""
    assert (await create(harness))[0] == 201
    status, said = await create(harness, **fields)
    assert (status, "use a new key for a new request" in said["error"]) == (422, True)
    assert creations(pve) == 1


@pytest.mark.parametrize("key", ["a b", "é", "k" * 256])
async def test_bad_key(pve: Pve, harness: Harness, key: str) -> None:
    """A key that is none is 400."""
    assert (await create(harness, key=key))[0] == 400
    assert creations(pve) == 0


async def test_failed(pve: Pve, harness: Harness) -> None:
    """A creation that failed may be asked for again with the same key."""
    pve.cluster.create_failure = "disk is full"
    assert (await create(harness))[0] == 502
    pve.cluster.create_failure = None
    assert (await create(harness))[0] == 201
    assert creations(pve) == 2


async def test_restarted(pve: Pve, table: str, registry: Registry, tmp_path: Path) -> None:
    """After a stop in between, asking again finds what was made, and completes it."""
    lines: dict[str, Any] = {"image": 'targets = ["cluster"]', "more": table}
    wanted: dict[str, Any] = {"env": {"A": "b"}, "start": True}
    async with Harness(tmp_path, registry, **lines) as harness:
        assert (await harness.bring()).volumes
        pve.cluster.tasks_may_finish.clear()
        when_asked(pve, "/lxc", harness.services.stopping.set)
        status, said = await create(harness, **wanted)
        assert (status, "container 100 is being made on pve1" in said["error"]) == (503, True)
    async with Harness(tmp_path, registry, **lines) as harness:
        status, said = await create(harness, **wanted)
        assert (status, "container 100 is still being made" in said["error"]) == (503, True)
        pve.cluster.join_tasks()
        status, made = await create(harness, **wanted)
        assert (status, made["vmid"], made["running"]) == (201, 100, True)
        assert made["volume"].startswith("local:vztmpl/")
        assert "A=b" in str(pve.cluster.containers[100].config["env"])
        assert await create(harness, **wanted) == (201, made)
    async with Harness(tmp_path, registry, **lines) as harness:
        assert await create(harness, **wanted) == (201, made)
    assert creations(pve) == 1


async def test_no_secret(harness: Harness) -> None:
    """The ledger has neither the password nor a digest that a guess could be held against."""
    assert (await create(harness, password="correct horse"))[0] == 201
    status, _ = await create(harness, password="battery staple")
    assert status == 201
    with closing(sqlite3.connect(harness.services.live.config.state.paths.ledger)) as db, db:
        assert "correct" not in str(db.execute("SELECT * FROM requests").fetchall())


def test_no_digest_of_a_secret() -> None:
    """A body's digest, which is written down, is the same whatever its secrets are."""
    body = {"ref": "a.b/c", "password": "one", "credentials": {"token": "one"}}
    other = {"ref": "a.b/c", "password": "two", "credentials": {"token": "two"}}
    assert _digest(body) == _digest(other)
    assert _digest(body) != _digest({"ref": "a.b/c", "password": "one"})


async def test_forgotten(harness: Harness) -> None:
    """A key is forgotten after 90 days."""
    first = await create(harness)
    harness.services.ledger.expire()
    assert await create(harness) == first
    with closing(sqlite3.connect(harness.services.live.config.state.paths.ledger)) as db, db:
        db.execute("UPDATE requests SET received = '2020-01-01T00:00:00.000000+00:00'")
    harness.services.ledger.expire()
    # The description of the container still has the key's first mark, but the key has a new one.
    assert (await create(harness))[1]["vmid"] == 101
