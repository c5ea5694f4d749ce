"""Where an image lies, and containers made from it: the API against a make-believe cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from syncd.ledger import Ledger
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token
from tests.fakes.registry import Registry
from tests.houses import REPOSITORY, House, cluster_table, described, sample
from tests.images import Content, image, index, layer
from tests.targets import LAUNCHING, names_on, token_for, uploads, when_asked

RUNTIME = {"Entrypoint": ["/bin/app"], "Cmd": ["--serve"], "Env": ["LANG=C"]}


@pytest.fixture
def token(pve: Pve) -> Token:
    return token_for(pve, LAUNCHING)


@pytest.fixture
async def house(pve: Pve, token: Token, registry: Registry, tmp_path: Path) -> AsyncIterator[House]:
    """Watch one image that goes to the cluster, but to no other target."""
    registry.push(REPOSITORY, "latest", sample())
    table = cluster_table(tmp_path, pve, token)
    async with House(tmp_path, registry, image='targets = ["cluster"]', more=table) as house:
        yield house


async def create(house: House, **fields: Any) -> tuple[int, Any]:
    body = {"ref": str(house.latest), "hostname": "web"} | fields
    answer = await house.ask("POST", "/api/v1/containers", json=body)
    return answer.status, described(answer, "/api/v1/containers")


async def resolve(house: House, ref: object, **more: str) -> tuple[int, Any]:
    answer = await house.ask("GET", "/api/v1/resolve", params={"ref": str(ref)} | more)
    return answer.status, described(answer, "/api/v1/resolve")


def pushed(house: House, registry: Registry, tag: str, content: Content) -> str:
    return registry.push(house.repository.repository, tag, content)


@pytest.mark.parametrize(
    ("pve", "ending"), [("9.2.11", ".tar"), ("8.4.5", ".zst")], indirect=["pve"]
)
async def test_created(pve: Pve, house: House, ending: str) -> None:
    """An image that is nowhere yet is fetched, published and made into a container."""
    status, made = await create(house, node="pve1", start=True, cores=2)
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
    assert (await create(house, hostname="again"))[1]["vmid"] == 101
    assert len(uploads(pve)) == sent
    assert len(house.parts.ledger.jobs(9)) == 1


async def test_startup(pve: Pve, token: Token, registry: Registry, tmp_path: Path) -> None:
    """The image's entrypoint and variables go beside a rootfs template."""
    registry.push(REPOSITORY, "latest", image(layer(), runtime=RUNTIME))
    lines = 'targets = ["cluster"]\nformat = "rootfs"'
    table = cluster_table(tmp_path, pve, token)
    async with House(tmp_path, registry, image=lines, more=table) as house:
        assert (await create(house))[0] == 201
    config = pve.cluster.containers[100].config
    assert (config["entrypoint"], config["env"]) == ("/bin/app --serve", "LANG=C")


@pytest.mark.parametrize("ask", [resolve, create])
async def test_one_pull(pve: Pve, house: House, registry: Registry, ask: Any) -> None:
    """Requests for one reference at a time share one pull."""
    asked = (
        [resolve(house, house.latest, pull="1") for _ in range(5)]
        if ask is resolve
        else [create(house, hostname=f"web{n}") for n in range(5)]
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


async def test_only_looked(pve: Pve, house: House) -> None:
    """Resolving without pull changes nothing: no job, no template, no call but GET."""
    before = sorted(house.folder.rglob("*"))
    assert (await resolve(house, house.latest))[0] == 404
    assert sorted(house.folder.rglob("*")) == before
    await resolve(house, house.latest, pull="1")
    made, rows = len(pve.requests), house.parts.ledger.templates()
    assert (await resolve(house, house.latest))[0] == 200
    assert {request.method for request in pve.requests[made:]} == {"GET"}
    assert house.parts.ledger.templates() == rows
    assert len(house.parts.ledger.jobs(9)) == 1


async def test_by_digest(house: House, registry: Registry) -> None:
    """By tag, without one, or by the digest of index or manifest, it is the same volume."""
    single = sample("single")
    multi = index(single, sample("two"))
    reference = pushed(house, registry, "latest", multi)
    status, said = await resolve(house, reference, pull="1")
    assert status == 200
    entries = multi.document["manifests"]
    names = [house.repository, f"{house.repository}@{multi.digest}", f"{reference}@{multi.digest}"]
    for name in [*names, f"{house.repository}@{entries[0]['digest']}"]:
        assert (await resolve(house, name))[1].get("volumes") == said["volumes"]
    other = f"{house.repository}@{entries[1]['digest']}"
    assert (await resolve(house, other))[0] == 404
    assert (await create(house, ref=f"{house.repository}@{multi.digest}"))[0] == 201
    assert len(house.parts.ledger.jobs(9)) == 1


async def test_put_there_by_others(pve: Pve, house: House) -> None:
    """A file of the right name that somebody else put there is as good as our own."""
    _, said = await resolve(house, house.latest, pull="1")
    (name,) = names_on(pve, "local", "pve1")
    house.parts.ledger.forget("cluster", name)
    assert (await resolve(house, house.latest))[1] == said
    assert (await create(house))[1]["volume"] == said["volumes"][0]
    assert len(uploads(pve)) == 2


async def test_half_uploaded(pve: Pve, house: House) -> None:
    """A file that syncd has not finished is not there yet, though the storage lists it."""
    await resolve(house, house.latest, pull="1")
    ledger: Ledger = house.parts.ledger
    (template,) = ledger.templates()
    ledger.forget(template.target, template.name)
    ledger.intend(template)
    assert (await resolve(house, house.latest))[0] == 404


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"ref": ""}, ["ref: '' is not an image reference"]),
        ({"ref": 5}, ["ref: '' is not an image reference"]),
        (
            {"ref": "Not One", "hostname": "under_score", "cores": 0, "disk": 5},
            ["ref: ", "hostname: 'under_score' is not a host name", "cores: ", "disk: Extra"],
        ),
        ({"target": "local"}, ["goes to no cluster named 'local'; there is: cluster"]),
        ({"features": "fuse=1"}, ["the features fuse are refused to API tokens"]),
    ],
)
async def test_bad_order(pve: Pve, house: House, fields: dict[str, Any], faults: list[str]) -> None:
    """What is wrong as it was written is 400, with every fault, and makes nothing."""
    status, said = await create(house, **fields)
    assert status == 400
    assert all(fault in said["error"] for fault in faults), said
    assert pve.cluster.containers == {}


async def test_which_cluster(pve: Pve, token: Token, registry: Registry, tmp_path: Path) -> None:
    """With several clusters one is to be named, and its own template is used."""
    registry.push(REPOSITORY, "latest", sample())
    tables = cluster_table(tmp_path, pve, token) + cluster_table(
        tmp_path, pve, token, name="other", storage="cephfs"
    )
    async with House(tmp_path, registry, more=tables) as house:
        status, said = await create(house)
        assert (status, "name a target: cluster, other" in said["error"]) == (400, True)
        assert house.parts.ledger.jobs(9) == []
        assert (await create(house, target="other"))[1]["volume"].startswith("cephfs:")
        assert (await create(house, target="cluster"))[1]["volume"].startswith("local:")


async def test_no_cluster(registry: Registry, tmp_path: Path) -> None:
    """Where nothing makes containers, that is said before anything is fetched."""
    registry.push(REPOSITORY, "latest", sample())
    async with House(tmp_path, registry) as house:
        status, said = await create(house)
        assert (status, "makes containers; add a [[target]]" in said["error"]) == (400, True)
        assert registry.requests == []


async def test_vmid_taken(house: House) -> None:
    """A VMID that was asked for and is taken is 502, in Proxmox VE's words."""
    assert (await create(house, vmid=200))[0] == 201
    status, said = await create(house, vmid=200)
    assert (status, "CT 200 already exists on node" in said["error"]) == (502, True)


async def test_failed(pve: Pve, house: House) -> None:
    """A creation that fails is 502 with the end of its log, and leaves nothing."""
    pve.cluster.create_failure = "unsupported distribution 'foo'"
    status, said = await create(house)
    assert status == 502
    assert "unsupported distribution 'foo'" in said["error"]
    assert "log ends: extracting archive" in said["error"]
    assert pve.cluster.containers == {}


async def test_no_privilege(house: House, token: Token) -> None:
    """A privilege that lacks is named with the command that grants it."""
    token.acl["/vms"] -= {"VM.Config.Network"}
    status, said = await create(house)
    assert (status, "VM.Config.Network" in said["error"]) == (502, True)
    assert "pveum acl modify /vms" in said["error"]


async def test_not_fetched(house: House, registry: Registry) -> None:
    """An image that the registry lacks is 404, one that is broken 502."""
    assert (await create(house, ref=f"{registry.address}/none"))[0] == 404
    registry.replace_blob(sample().document["layers"][0]["digest"], None)
    status, said = await create(house)
    assert (status, bool(said["error"])) == (502, True)


async def test_still_fetching(pve: Pve, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull that takes longer than a request may is 504 with its job, which goes on."""
    monkeypatch.setattr("syncd.api._PULL_TIMEOUT", 0.1)
    pve.cluster.tasks_may_finish.clear()
    status, said = await create(house)
    pve.cluster.tasks_may_finish.set()
    (record,) = house.parts.ledger.jobs(9)
    assert (status, record.job.id in said["error"]) == (504, True)
    assert (await house.outcome(record.job.id)).volumes
    assert pve.cluster.containers == {}


async def test_stopped(pve: Pve, house: House) -> None:
    """A daemon that stops while a container is being made says that it goes on without it."""
    await resolve(house, house.latest, pull="1")
    pve.cluster.tasks_may_finish.clear()
    when_asked(pve, "/lxc", house.parts.stopping.set)
    status, said = await create(house)
    pve.cluster.tasks_may_finish.set()
    assert (status, "look there before you ask again" in said["error"]) == (503, True)
