"""Where an image lies, and containers made from it: the API against a make-believe cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from syncd.sync.ledger import Ledger
from tests.archives import file
from tests.clusters import LAUNCHING, TOKEN, names_on, token_for, uploads, when_asked
from tests.fakes.pve import Pve
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, cluster_table, described, on_cluster, sample
from tests.images import Content, image, index, layer

RUNTIME = {"Entrypoint": ["/bin/app"], "Cmd": ["--serve"], "Env": ["LANG=C"]}


@pytest.fixture
async def harness(pve: Pve, registry: Registry, tmp_path: Path) -> AsyncIterator[Harness]:
    """Watch one image that goes to the cluster, but to no other target."""
    registry.push(REPOSITORY, "latest", sample())
    async with on_cluster(tmp_path, registry, pve) as harness:
        yield harness


async def create(harness: Harness, **fields: Any) -> tuple[int, Any]:
    body = {"ref": str(harness.latest), "hostname": "web"} | fields
    answer = await harness.ask("POST", "/api/v1/containers", json=body)
    return answer.status, described(answer, "/api/v1/containers")


async def resolve(harness: Harness, ref: object, **more: str) -> tuple[int, Any]:
    answer = await harness.ask("GET", "/api/v1/resolve", params={"ref": str(ref)} | more)
    return answer.status, described(answer, "/api/v1/resolve")


def config_of(content: Content) -> str:
    return str(content.document["config"]["digest"])


def pushed(harness: Harness, registry: Registry, tag: str, content: Content) -> str:
    return registry.push(harness.repository.repository, tag, content)


@pytest.mark.parametrize(
    ("pve", "ending"), [("9.2.11", ".tar"), ("8.4.5", ".zst")], indirect=["pve"]
)
async def test_created(pve: Pve, harness: Harness, ending: str) -> None:
    """An image that is nowhere yet is fetched, published and made into a container."""
    status, made = await create(harness, node="pve1", start=True, cores=2)
    assert status == 201
    volume = f"local:vztmpl/{names_on(pve, 'local', 'pve1')[0]}"
    assert volume.endswith(ending)
    assert made == {
        "vmid": 100,
        "node": "pve1",
        "hostname": "web",
        "volume": volume,
        "ostype": "debian",
        "running": True,
        "warnings": [],
    }
    assert pve.cluster.containers[100].config["cores"] == 2
    sent = len(uploads(pve))
    assert (await create(harness, hostname="again"))[1]["vmid"] == 101
    assert len(uploads(pve)) == sent
    assert len(harness.services.ledger.jobs(9)) == 1


async def test_startup(pve: Pve, registry: Registry, tmp_path: Path) -> None:
    """The image's entrypoint and variables go beside a rootfs template."""
    registry.push(REPOSITORY, "latest", image(layer(), runtime=RUNTIME))
    async with on_cluster(tmp_path, registry, pve, image='format = "rootfs"') as harness:
        status, made = await create(harness)
        assert (status, made["warnings"]) == (201, [])
    config = pve.cluster.containers[100].config
    assert (config["entrypoint"], config["env"]) == ("/bin/app --serve", "LANG=C")
    assert config["cmode"] == "console"
    assert str(config["net0"]).endswith("host-managed=1")


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
async def test_first_platform(pve: Pve, registry: Registry, tmp_path: Path) -> None:
    """Of several platforms a container is made of the first, whichever was published last."""
    both = index(sample(), image(layer(), platform="linux/arm64"))
    registry.push(REPOSITORY, "latest", both)
    platforms = 'platform = ["linux/amd64", "linux/arm64"]'
    async with on_cluster(tmp_path, registry, pve, image=platforms) as harness:
        for hostname in ("one", "two"):
            status, made = await create(harness, hostname=hostname, node="pve1")
            assert (status, "arm64" in made["volume"]) == (201, False)
        names = names_on(pve, "local", "pve1")
        assert sorted("_arm64.tar" in name for name in names) == [False, True]


@pytest.mark.parametrize(
    ("machines", "asked", "made_on", "is_arm"),
    [
        (("x86_64", "aarch64"), None, "pve1", False),
        (("aarch64", "x86_64"), None, "pve2", False),
        (("aarch64", "x86_64"), "pve1", "pve1", True),
        (("x86_64", "aarch64"), "pve2", "pve2", True),
        (("aarch64", "aarch64"), "pve2", "pve2", True),
    ],
)
async def test_nodes_of_two_architectures(
    machines: tuple[str, str],
    asked: str | None,
    made_on: str,
    is_arm: bool,
    *,
    pve: Pve,
    registry: Registry,
    tmp_path: Path,
) -> None:
    """A node gets the template of its architecture; unasked it is one of the first platform."""
    for node, machine in zip(("pve1", "pve2"), machines, strict=True):
        pve.cluster.nodes[node].machine = machine
    arms = (image(layer(file(f"{n}")), platform="linux/arm64") for n in range(99))
    both = index(sample(), next(one for one in arms if config_of(one) < config_of(sample())))
    registry.push(REPOSITORY, "latest", both)  # the names sort either way: amd64 is the last here
    platforms = 'platform = ["linux/amd64", "linux/arm64"]'
    async with on_cluster(tmp_path, registry, pve, image=platforms) as harness:
        status, made = await create(harness, **({"node": asked} if asked else {}))
        assert (status, made["node"]) == (201, made_on)
        assert ("_arm64.tar" in made["volume"]) == is_arm


async def test_node_of_no_platform(pve: Pve, registry: Registry, tmp_path: Path) -> None:
    """A node that none of the platforms runs on is refused."""
    pve.cluster.nodes["pve2"].machine = "riscv64"
    registry.push(REPOSITORY, "latest", index(sample(), image(layer(), platform="linux/arm64")))
    platforms = 'platform = ["linux/amd64", "linux/arm64"]'
    async with on_cluster(tmp_path, registry, pve, image=platforms) as harness:
        status, said = await create(harness, node="pve2")
        assert status == 400
        assert "runs on node 'pve2'" in said["error"]


async def test_lost_startup(pve: Pve, registry: Registry, tmp_path: Path) -> None:
    """What no parameter can say of an application is told with each container made of it."""
    runtime = RUNTIME | {"User": "app", "WorkingDir": "/srv"}
    registry.push(REPOSITORY, "latest", image(layer(), runtime=runtime))
    async with on_cluster(tmp_path, registry, pve, image='format = "rootfs"') as harness:
        for _ in range(2):
            (warning,) = (await create(harness))[1]["warnings"]
            assert "User 'app', WorkingDir '/srv'" in warning
            assert 'use the format "oci"' in warning


@pytest.mark.parametrize("ask", [resolve, create])
async def test_one_pull(pve: Pve, harness: Harness, registry: Registry, ask: Any) -> None:
    """Requests for one reference at a time share one pull."""
    asked = (
        [resolve(harness, harness.latest, pull="1") for _ in range(5)]
        if ask is resolve
        else [create(harness, hostname=f"web{n}") for n in range(5)]
    )
    answers = await asyncio.gather(*asked)
    assert {status for status, _ in answers} == {200 if ask is resolve else 201}
    layers = {one["digest"] for one in sample().document["layers"]}
    fetched = [digest for digest in registry.fetched() if digest in layers]
    assert sorted(fetched) == sorted(layers)
    assert len(uploads(pve)) == 2
    if ask is resolve:
        assert all(said == answers[0][1] for _, said in answers)
    else:
        assert sorted(said["vmid"] for _, said in answers) == [100, 101, 102, 103, 104]


async def test_only_looked(pve: Pve, harness: Harness) -> None:
    """Resolving without pull changes nothing: no job, no template, no call but GET."""
    before = sorted(harness.folder.rglob("*"))
    assert (await resolve(harness, harness.latest))[0] == 404
    assert sorted(harness.folder.rglob("*")) == before
    await resolve(harness, harness.latest, pull="1")
    made, rows = len(pve.requests), harness.services.ledger.templates()
    assert (await resolve(harness, harness.latest))[0] == 200
    assert {request.method for request in pve.requests[made:]} <= {"GET"}
    assert harness.services.ledger.templates() == rows
    assert len(harness.services.ledger.jobs(9)) == 1


async def test_by_digest(harness: Harness, registry: Registry) -> None:
    """By tag, without one, or by the digest of index or manifest, it is the same volume."""
    single = sample("single")
    multi = index(single, sample("two"))
    reference = pushed(harness, registry, "latest", multi)
    status, said = await resolve(harness, reference, pull="1")
    assert status == 200
    entries = multi.document["manifests"]
    names = [
        harness.repository,
        f"{harness.repository}@{multi.digest}",
        f"{reference}@{multi.digest}",
    ]
    for name in [*names, f"{harness.repository}@{entries[0]['digest']}"]:
        assert (await resolve(harness, name))[1].get("volumes") == said["volumes"]
    other = f"{harness.repository}@{entries[1]['digest']}"
    assert (await resolve(harness, other))[0] == 404
    assert (await create(harness, ref=f"{harness.repository}@{multi.digest}"))[0] == 201
    assert len(harness.services.ledger.jobs(9)) == 1


async def test_put_there_by_others(pve: Pve, harness: Harness) -> None:
    """A file of the right name that somebody else put there is as good as our own."""
    _, said = await resolve(harness, harness.latest, pull="1")
    (name,) = names_on(pve, "local", "pve1")
    harness.services.ledger.forget("cluster", name)
    assert (await resolve(harness, harness.latest))[1] == said
    assert (await create(harness))[1]["volume"] == said["volumes"][0]
    assert len(uploads(pve)) == 2


async def test_half_uploaded(pve: Pve, harness: Harness) -> None:
    """A file that syncd has not finished is not there yet, though the storage lists it."""
    await resolve(harness, harness.latest, pull="1")
    ledger: Ledger = harness.services.ledger
    (template,) = ledger.templates()
    ledger.forget(template.target, template.name)
    ledger.intend(template)
    assert (await resolve(harness, harness.latest))[0] == 404


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"ref": ""}, ["ref: '' is not an image reference"]),
        ({"ref": 5}, ["ref: Input should be a valid string"]),
        (
            {"ref": "Not One", "hostname": "under_score", "cores": 0, "disk": 5},
            ["ref: ", "hostname: 'under_score' is not a host name", "cores: ", "disk: Extra"],
        ),
        ({"target": "local"}, ["goes to no cluster named 'local'; there is: cluster"]),
        ({"features": "fuse=1"}, ["the features fuse are refused to API tokens"]),
    ],
)
async def test_bad_order(
    pve: Pve, harness: Harness, fields: dict[str, Any], faults: list[str]
) -> None:
    """What is wrong as it was written is 400, with every fault, and makes nothing."""
    status, said = await create(harness, **fields)
    assert status == 400
    assert all(fault in said["error"] for fault in faults), said
    assert pve.cluster.containers == {}


async def test_which_cluster(pve: Pve, registry: Registry, tmp_path: Path) -> None:
    """With several clusters one is to be named, and its own template is used."""
    registry.push(REPOSITORY, "latest", sample())
    token = token_for(pve, LAUNCHING)
    tables = cluster_table(tmp_path, pve, token) + cluster_table(
        tmp_path, pve, token, name="other", storage="cephfs"
    )
    async with Harness(tmp_path, registry, more=tables) as harness:
        status, said = await create(harness)
        assert (status, "name a target: cluster, other" in said["error"]) == (400, True)
        assert harness.services.ledger.jobs(9) == []
        assert (await create(harness, target="other"))[1]["volume"].startswith("cephfs:")
        assert (await create(harness, target="cluster"))[1]["volume"].startswith("local:")


async def test_no_cluster(registry: Registry, tmp_path: Path) -> None:
    """Where nothing makes containers, that is said before anything is fetched."""
    registry.push(REPOSITORY, "latest", sample())
    async with Harness(tmp_path, registry) as harness:
        status, said = await create(harness)
        assert (status, "makes containers; add a [[target]]" in said["error"]) == (400, True)
        assert registry.requests == []


async def test_vmid_taken(harness: Harness) -> None:
    """A VMID that was asked for and is taken is 502, in Proxmox VE's words."""
    assert (await create(harness, vmid=200))[0] == 201
    status, said = await create(harness, vmid=200)
    assert (status, "CT 200 already exists on node" in said["error"]) == (502, True)


async def test_failed(pve: Pve, harness: Harness) -> None:
    """A creation that fails is 502 with the end of its log, and leaves nothing."""
    pve.cluster.create_failure = "unsupported distribution 'foo'"
    status, said = await create(harness)
    assert status == 502
    assert "unsupported distribution 'foo'" in said["error"]
    assert "log ends: extracting archive" in said["error"]
    assert pve.cluster.containers == {}


async def test_no_privilege(pve: Pve, harness: Harness) -> None:
    """A privilege that lacks is named with the command that grants it."""
    pve.cluster.tokens[TOKEN].acl["/vms"] -= {"VM.Config.Network"}
    status, said = await create(harness)
    assert (status, "VM.Config.Network" in said["error"]) == (502, True)
    assert "pveum acl modify /vms" in said["error"]


async def test_not_fetched(harness: Harness, registry: Registry) -> None:
    """An image that the registry lacks is 404, one that is broken 502."""
    assert (await create(harness, ref=f"{registry.address}/none"))[0] == 404
    registry.replace_blob(sample().document["layers"][0]["digest"], None)
    status, said = await create(harness)
    assert (status, bool(said["error"])) == (502, True)


async def test_still_fetching(pve: Pve, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull that takes longer than a request may is 504 with its job, which goes on."""
    monkeypatch.setattr("syncd.web.api._PULL_TIMEOUT", 0.1)
    pve.cluster.tasks_may_finish.clear()
    status, said = await create(harness)
    pve.cluster.tasks_may_finish.set()
    (record,) = harness.services.ledger.jobs(9)
    assert (status, record.job.id in said["error"]) == (504, True)
    assert (await harness.outcome(record.job.id)).volumes
    assert pve.cluster.containers == {}


async def test_stopped(pve: Pve, harness: Harness) -> None:
    """A daemon that stops while a container is being made says that it goes on without it."""
    await resolve(harness, harness.latest, pull="1")
    pve.cluster.tasks_may_finish.clear()
    when_asked(pve, "/lxc", harness.services.stopping.set)
    status, said = await create(harness)
    pve.cluster.tasks_may_finish.set()
    assert (status, "look there before you ask again" in said["error"]) == (503, True)
