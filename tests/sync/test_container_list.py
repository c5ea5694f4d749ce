"""What was made from which image: the API and the command against a make-believe cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from syncd.targets.origin import Origin
from tests.clusters import IMAGE
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Container
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described, on_cluster, sample


@pytest.fixture
async def harness(pve: Pve, registry: Registry, tmp_path: Path) -> AsyncIterator[Harness]:
    """Watch one image that goes to the cluster, and make one container from it."""
    registry.push(REPOSITORY, "latest", sample())
    async with on_cluster(tmp_path, registry, pve) as harness:
        body = {"ref": str(harness.latest), "hostname": "web", "node": "pve1", "start": True}
        assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
        yield harness


async def listed(harness: Harness, **query: str) -> list[dict[str, Any]]:
    answer = await harness.ask("GET", "/api/v1/containers", params=query)
    assert answer.status == 200
    found: list[dict[str, Any]] = described(answer, "/api/v1/containers")["containers"]
    return found


def by_hand(pve: Pve, vmid: int, description: str = "") -> None:
    config: dict[str, str | int] = {"hostname": f"ct{vmid}", "description": description}
    pve.cluster.containers[vmid] = Container(vmid, "pve2", config)


async def test_current(harness: Harness) -> None:
    """A container tells its image and digest, and that its tag still means the same."""
    digest = str(sample().digest)
    assert await listed(harness) == [
        {
            "target": "cluster",
            "vmid": 100,
            "node": "pve1",
            "hostname": "web",
            "running": True,
            "image": str(harness.latest),
            "digest": digest,
            "current": digest,
            "behind": False,
            "fault": None,
        }
    ]


async def test_behind(harness: Harness, registry: Registry) -> None:
    """A container is behind once its tag means another image, published or not."""
    registry.push(REPOSITORY, "latest", sample("newer"))
    (found,) = await listed(harness)
    assert (found["behind"], found["current"]) == (True, str(sample("newer").digest))
    assert found["digest"] == str(sample().digest)
    await harness.bring()
    fetched = len(registry.requests)
    assert (await listed(harness))[0]["behind"]
    assert len(registry.requests) == fetched + 1


async def test_calls(pve: Pve, harness: Harness) -> None:
    """The list takes one call, and one for each container that syncd made: not for others."""
    for vmid in (200, 201, 202):
        by_hand(pve, vmid)
    before = len(pve.requests)
    assert [found["vmid"] for found in await listed(harness)] == [100]
    assert [request.path for request in pve.requests[before:]] == [
        "/cluster/resources",
        "/nodes/pve1/lxc/100/config",
    ]


async def test_all(pve: Pve, harness: Harness) -> None:
    """With all, what another syncd made is found by its description."""
    by_hand(pve, 200, Origin(IMAGE).ending("mine"))
    by_hand(pve, 201, "by hand")
    assert [found["vmid"] for found in await listed(harness)] == [100]
    assert [found["vmid"] for found in await listed(harness, all="1")] == [100, 200]


async def test_taken(pve: Pve, harness: Harness) -> None:
    """A VMID that is another's now is not asked for again, a hidden container is."""
    shown = pve.cluster.containers.pop(100)
    assert await listed(harness) == []
    assert harness.services.ledger.containers.made("cluster") == {100}
    by_hand(pve, 100, "by hand")
    assert await listed(harness) == []
    assert harness.services.ledger.containers.made("cluster") == frozenset()
    pve.cluster.containers[100] = shown


async def test_unknown(pve: Pve, harness: Harness, registry: Registry) -> None:
    """What cannot be told is told as unknown, with the reason; the rest is listed."""
    body = {"ref": str(harness.latest), "hostname": "db", "node": "pve2"}
    assert (await harness.ask("POST", "/api/v1/containers", json=body)).status == 201
    pve.cluster.nodes["pve2"].online = False
    registry.untag(REPOSITORY, "latest")
    first, second = await listed(harness)
    assert (first["image"], first["current"], first["behind"]) == (str(harness.latest), None, None)
    assert "latest" in first["fault"]
    assert (second["vmid"], second["image"], second["behind"]) == (101, None, None)
    assert "No route to host" in second["fault"]


async def test_refused(pve: Pve, harness: Harness) -> None:
    """A cluster that gives no answer is 503, and not an empty list."""
    pve.cluster.hang_ups = 99
    answer = await harness.ask("GET", "/api/v1/containers")
    assert answer.status == 503
