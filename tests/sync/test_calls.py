"""How many calls of the API the work takes: whole jobs and requests against a cluster of two nodes.

Calls that wait for a task are left out, since their number is the task's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from syncd.targets.proxmox import memory
from syncd.targets.proxmox.target import ProxmoxTarget
from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, on_cluster, sample

RELISTED = 2
"""Calls more where two uploads go on at a time: a listing that comes while the other upload ends
is not kept, since it may be older than that, and is asked for again."""


@pytest.fixture(params=["cephfs", "local"])
async def harness(
    pve: Pve,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Harness]:
    """Watch one image in a storage that both nodes share, or that each node has for itself.

    What is remembered for seconds is remembered for the test, however slow the machine is.
    """
    monkeypatch.setattr(memory, "SECONDS", 3600.0)
    registry.push(REPOSITORY, "latest", sample())
    tags = 'tags = ["re:.*"]'
    async with on_cluster(tmp_path, registry, pve, image=tags, storage=request.param) as harness:
        cluster(harness).format()  # the version is asked for once in a process
        yield harness


def cluster(harness: Harness) -> ProxmoxTarget:
    target = harness.services.live.targets["cluster"]
    assert isinstance(target, ProxmoxTarget)
    return target


def begin(pve: Pve, harness: Harness) -> int:
    """Let the next work begin without memory; return how many calls were made before it."""
    cluster(harness)._client.forget("*")
    return len(pve.requests)


def calls(pve: Pve, before: int) -> list[str]:
    """Return the calls that were made since `begin`."""
    made = [f"{request.method} {request.path}" for request in pve.requests[before:]]
    return [call for call in made if "/tasks/UPID" not in call]


def shared(harness: Harness) -> bool:
    return harness.services.live.config.target[-1].storage == "cephfs"  # type: ignore[union-attr]


async def test_published(pve: Pve, harness: Harness) -> None:
    """A new template in a shared storage takes 10 calls; in two storages 18, uploads included."""
    before = begin(pve, harness)
    assert (await harness.bring()).volumes
    made = calls(pve, before)
    assert len(made) <= (10 if shared(harness) else 18 + RELISTED), made


async def test_unchanged(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A sweep over twenty tags that are published already takes as many calls as over one: 6."""
    for number in range(20):
        registry.push(REPOSITORY, f"v{number}", sample())
        await harness.bring(f"v{number}")
    await harness.bring()
    before = begin(pve, harness)
    assert (await harness.services.sweep.look()).stale == []
    made = calls(pve, before)
    assert len(made) <= (3 if shared(harness) else 5), made


async def test_created(pve: Pve, harness: Harness) -> None:
    """A container takes 10 calls where its template is there, and where each node has one 12."""
    await harness.bring()
    before = begin(pve, harness)
    body = {"ref": str(harness.latest), "hostname": "web", "env": {"A": "b"}, "start": True}
    assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
    made = calls(pve, before)
    assert len(made) <= (10 if shared(harness) else 12), made


async def test_command(pve: Pve, harness: Harness) -> None:
    """A command, which is a process of its own, asks for the version besides, once."""
    client = cluster(harness)._client
    client._version = (0, 0)
    before = begin(pve, harness)
    assert (await harness.bring()).volumes
    made = calls(pve, before)
    assert made.count("GET /version") == 1
    assert len(made) <= (11 if shared(harness) else 19 + RELISTED), made
    client._version = (0, 0)
    before = begin(pve, harness)
    body = {"ref": str(harness.latest), "hostname": "web", "env": {"A": "b"}, "start": True}
    assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
    made = calls(pve, before)
    assert made.count("GET /version") == 1
    assert len(made) <= (11 if shared(harness) else 13), made


async def test_best_node_alone(pve: Pve, harness: Harness) -> None:
    """Only the best node is asked for storages of root file systems, unless it has none."""
    await harness.bring()
    before = begin(pve, harness)
    pve.cluster.nodes["pve2"].mem = 0
    body = {"ref": str(harness.latest), "hostname": "web", "start": False}
    assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
    pve.cluster.storages["local-zfs"].nodes = ("pve1",)
    cluster(harness)._client.forget("*")
    assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
    asked = [r.path for r in pve.requests[before:] if r.params.get("content") == "rootdir"]
    assert asked == [f"/nodes/{node}/storage" for node in ("pve2", "pve2", "pve1")]
    assert [one.node for one in pve.cluster.containers.values()] == ["pve2", "pve1"]


async def test_replaced(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A new root takes 39 calls where its template is there, 7 of which change something."""
    await harness.bring()
    body = {"ref": str(harness.latest), "hostname": "web", "node": "pve1", "start": True}
    assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
    registry.push(REPOSITORY, "latest", sample("newer"))
    await harness.bring()
    before = begin(pve, harness)
    answer = await harness.ask("POST", "/api/v1/containers/100/replace", json={"timeout": 5})
    assert answer.status == 200
    made = calls(pve, before)
    assert len(made) <= (39 if shared(harness) else 41), made
    assert len([call for call in made if not call.startswith("GET")]) <= 7, made
