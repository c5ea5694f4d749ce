"""Which platform's template is used, on a cluster whose nodes are of two architectures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from syncd.oci import Reference
from syncd.sync.job import Cause, Result
from syncd.sync.replacement import BehindOptions
from syncd.sync.selection import Named, foreseen
from syncd.targets import Origin
from tests.archives import file
from tests.clusters import LAUNCHING, token_for
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Container, RootVolume
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, on_cluster, sample
from tests.images import Content, image, index, layer
from tests.targets.proxmox.test_root_swapper import V0, container

BOTH = 'platform = ["linux/amd64", "linux/arm64"]'
ON_ARM = "local-zfs:subvol-101-disk-0"


def arm(text: str = "") -> Content:
    """Return a small image for arm64 with this text in it."""
    return image(layer(file("text", text.encode())), platform="linux/arm64")


@pytest.fixture
async def harness(pve: Pve, registry: Registry, tmp_path: Path) -> AsyncIterator[Harness]:
    """Watch an image for both on a cluster of pve1 (amd64) and pve2 (arm64)."""
    pve.cluster.nodes["pve2"].machine = "aarch64"
    registry.push(REPOSITORY, "latest", index(sample(), arm()))
    async with on_cluster(tmp_path, registry, pve, image=BOTH) as harness:
        yield harness


@pytest.fixture
def made(pve: Pve, harness: Harness) -> tuple[Container, Container]:
    """Put a container on each node, made from the first image of its architecture."""

    def ending(content: Content) -> str:
        return Origin(Reference.parse(f"{harness.latest}@{content.digest}")).ending("")

    first = container(pve, description=ending(sample()))
    config = dict(first.config) | {
        "arch": "arm64",
        "rootfs": f"{ON_ARM},size=8G",
        "description": ending(arm()),
    }
    del config["mp0"]
    second = Container(101, "pve2", config, running=True)
    pve.cluster.containers[101] = second
    pve.cluster.volumes[ON_ARM] = RootVolume(101, unprivileged=True)
    return first, second


def hide_machines(pve: Pve) -> None:
    """Take away what tells the nodes' hardware."""
    token_for(pve, {path: names for path, names in LAUNCHING.items() if path != "/nodes"})


async def behind(harness: Harness) -> dict[int, Any]:
    answer = await (await harness.ask("GET", "/api/v1/containers?all=1")).json()
    return {each["vmid"]: each["behind"] for each in answer["containers"]}


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.usefixtures("made")
async def test_replaced(pve: Pve, harness: Harness, registry: Registry, *, hidden: bool) -> None:
    """Each container gets the template of its architecture, and is behind its own platform."""
    if hidden:
        hide_machines(pve)
    assert await behind(harness) == {100: False, 101: False}
    new, other = sample("newer"), arm("newer")
    registry.push(REPOSITORY, "latest", index(new, other))
    assert await behind(harness) == {100: True, 101: True}
    for vmid, content, is_arm in ((100, new, False), (101, other, True)):
        answer = await harness.ask("POST", f"/api/v1/containers/{vmid}/replace", json={})
        done = await answer.json()
        assert answer.status == 200, done
        assert done["image"] == f"{harness.latest}@{content.digest}"
        template = pve.cluster.volumes[done["new_root"]].content
        assert ("_arm64.tar" in template) == is_arm
    assert await behind(harness) == {100: False, 101: False}


@pytest.mark.usefixtures("made")
async def test_one_platform_moved(harness: Harness, registry: Registry) -> None:
    """A tag whose image for one platform is new leaves the containers of the other alone."""
    registry.push(REPOSITORY, "latest", index(sample(), arm("newer")))
    assert await behind(harness) == {100: False, 101: True}
    options = BehindOptions.parse({"ref": str(harness.latest)})
    row = await harness.services.roots.replace_behind(options, Cause.CLI)
    assert (row.error, [done.vmid for done in row.replaced]) == (None, [101])


async def test_fallen_back(
    pve: Pve, harness: Harness, registry: Registry, made: tuple[Container, Container]
) -> None:
    """Where Proxmox VE took an image without a shell for amd64, the node's hardware counts."""
    made[1].config["arch"] = "amd64"
    registry.push(REPOSITORY, "latest", index(sample(), arm("newer")))
    answer = await harness.ask("POST", "/api/v1/containers/101/replace", json={})
    done = await answer.json()
    assert "_arm64.tar" in pve.cluster.volumes[done["new_root"]].content


@pytest.mark.usefixtures("made")
async def test_node_of_none(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A container whose node runs none of the platforms is not skipped, but named with the why."""
    pve.cluster.nodes["pve2"].machine = "riscv64"
    registry.push(REPOSITORY, "latest", index(sample(), arm("newer")))
    options = BehindOptions.parse({"ref": str(harness.latest)})
    row = await harness.services.roots.replace_behind(options, Cause.CLI)
    assert (row.failed, "runs on node 'pve2'" in str(row.error)) == (101, True)
    assert V0 in pve.cluster.volumes


@pytest.mark.parametrize(
    ("machines", "query", "is_arm"),
    [
        (("x86_64", "aarch64"), "", False),
        (("x86_64", "aarch64"), "&node=pve1", False),
        (("x86_64", "aarch64"), "&node=pve2", True),
        (("aarch64", "aarch64"), "", True),
    ],
)
async def test_resolved(
    pve: Pve, harness: Harness, machines: tuple[str, str], query: str, *, is_arm: bool
) -> None:
    """`resolve` tells the template that runs on the node, or on any; with `pull=1` as well."""
    for node, machine in zip(("pve1", "pve2"), machines, strict=True):
        pve.cluster.nodes[node].machine = machine
    path = f"/api/v1/resolve?ref={harness.latest}{query}"
    assert (await harness.ask("GET", path)).status == 404
    for asked in (f"{path}&pull=1", path):
        answer = await harness.ask("GET", asked)
        volumes = (await answer.json())["volumes"]
        assert [volume.endswith("_arm64.tar") for volume in volumes] == [is_arm]


async def test_resolved_for_none(pve: Pve, harness: Harness) -> None:
    """A node that runs none of the platforms is told."""
    pve.cluster.nodes["pve2"].machine = "riscv64"
    answer = await harness.ask("GET", f"/api/v1/resolve?ref={harness.latest}&node=pve2")
    assert (answer.status, "runs on node 'pve2'" in await answer.text()) == (400, True)


async def test_first_is_absent(harness: Harness, registry: Registry) -> None:
    """What one platform lacks keeps nobody from a template of the other."""
    registry.push(REPOSITORY, "latest", index(arm()))
    path = f"/api/v1/resolve?ref={harness.latest}&pull=1"
    answer = await harness.ask("GET", f"{path}&node=pve2")
    assert answer.status == 200, await answer.text()
    assert (await harness.ask("GET", path)).status == 502


async def test_foreseen(harness: Harness, registry: Registry) -> None:
    """A dry run of `sync` foresees a job where one of the platforms is not published."""
    meant = Named((harness.latest,))
    await harness.bring()
    ((_, end),) = await foreseen(harness.services.engine, meant)
    assert end is not None
    assert (end.result, len(end.volumes)) == (Result.UNCHANGED, 2)
    registry.push(REPOSITORY, "latest", index(sample(), arm("newer")))
    assert await foreseen(harness.services.engine, meant) == [(harness.latest, None)]
