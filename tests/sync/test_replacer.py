"""A newer image under a container, by the API against a make-believe cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import PublishError
from syncd.oci.reference import Reference
from syncd.sync.job import Cause
from syncd.sync.replacement import UNFINISHED, Replacement, ReplacementState, ReplaceOptions
from syncd.targets import Origin
from tests.clusters import LAUNCHING, token_for
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Container
from tests.fakes.pve_snapshot import roll_back
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, Harness, described, on_cluster, sample
from tests.images import Content, image, layer
from tests.targets.proxmox.test_root_swapper import V0, container

PATH = "/api/v1/containers/{vmid}/replace"


@pytest.fixture
async def harness(pve: Pve, registry: Registry, tmp_path: Path) -> AsyncIterator[Harness]:
    """Watch one image that goes to the cluster, but to no other target."""
    registry.push(REPOSITORY, "latest", sample())
    async with on_cluster(tmp_path, registry, pve) as harness:
        yield harness


def push(registry: Registry, content: Content) -> str:
    """Let the watched tag mean an image; return the digest."""
    registry.push(REPOSITORY, "latest", content)
    return content.digest


async def ask(harness: Harness, vmid: object = 100, **fields: Any) -> tuple[int, Any]:
    answer = await harness.ask("POST", f"/api/v1/containers/{vmid}/replace", json=fields)
    return answer.status, described(answer, PATH)


def made_from(pve: Pve, harness: Harness, digest: str) -> Container:
    """Put a container on the cluster whose description names a digest of the watched tag."""
    origin = Origin(Reference.parse(f"{harness.latest}@{digest}"), "mark-1")
    return container(pve, description=origin.ending("of the web team"))


async def test_replaced(pve: Pve, harness: Harness, registry: Registry) -> None:
    """Without a reference, the tag of the description counts; its template is fetched first.

    A variable that the old image had is the new image's, and one that a person set stays.
    """
    old = image(layer(), runtime={"Env": ["A=1", "B=1"]})
    made = made_from(pve, harness, push(registry, old))
    new = push(registry, sample("newer"))
    status, answer = await ask(harness)
    assert status == 200, answer
    assert answer["image"] == f"{harness.latest}@{new}"
    assert answer["done"]
    assert made.config["rootfs"].startswith(answer["new_root"])
    assert made.config[answer["kept_as"]] == answer["old_root"] == V0
    assert made.config["env"] == "PATH=/bin\0MINE=yes"
    assert made.config["description"] == (
        f"of the web team\n\nsyncd-request: mark-1\nsyncd: {harness.latest}@{new}"
    )
    assert made.running
    assert any("SSH host keys" in warning for warning in answer["warnings"])
    before = dict(made.config)
    status, answer = await ask(harness)
    assert (status, answer["done"], answer["already"], answer["steps"]) == (200, True, True, [])
    assert made.config == before
    listed = await (await harness.ask("GET", "/api/v1/containers")).json()
    assert [(each["vmid"], each["behind"]) for each in listed["containers"]] == [(100, False)]


async def test_dry_run(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A dry run tells the steps and what would be lost, and changes no container."""
    made = made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    before = dict(made.config)
    status, answer = await ask(harness, dry_run=True)
    assert (status, answer["done"], answer["new_root"]) == (200, False, None)
    assert answer["steps"][:2] == ["stop", "allocate"]
    assert any("SSH host keys" in warning for warning in answer["warnings"])
    assert made.config == before
    changing = [one.path for one in pve.requests if one.method != "GET" and "/lxc" in one.path]
    assert changing == []


@pytest.mark.parametrize(
    ("vmid", "fields", "message"),
    [
        (100, {}, "names no image"),
        (200, {}, "there is no container 200"),
        (1, {}, "is no VMID"),
        (100, {"target": "other"}, "no target named 'other'"),
        (100, {"wait_for": "command:true"}, "wait_for: 'command:true' is not running, address"),
        (100, {"carry": ["/etc/ssh"]}, "carry"),
    ],
)
async def test_refused(
    pve: Pve, harness: Harness, vmid: int, fields: dict[str, Any], message: str
) -> None:
    """What cannot be replaced as asked is refused, with the reason."""
    container(pve)
    status, answer = await ask(harness, vmid, **fields)
    assert status == 400
    assert message in answer["error"]


async def test_went_back(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A container that does not become ready is as it was, and the answer says so."""
    made = made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    before = dict(made.config)
    status, answer = await ask(harness, wait_for="http:9", timeout=1)
    assert status == 502
    assert "is as it was" in answer["error"]
    assert "127.0.0.1:9 gives no HTTP answer" in answer["error"]
    assert made.config == before
    assert made.running


async def test_command(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A command on this host decides whether the container is ready, if the caller may say so."""
    made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    act = harness.services.roots.replace
    options = ReplaceOptions(timeout=1)
    test = 'command:sh -c "test $SYNCD_VMID = {} && test $SYNCD_ADDRESS = 127.0.0.1"'
    with pytest.raises(PublishError, match="the command ended with 1"):
        await act(100, options, Cause.CLI, wait_for=test.format(101))
    assert (await act(100, options, Cause.CLI, wait_for=test.format(100))).done


async def test_rolled_back(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A container that was rolled back has its old image, though its description says otherwise."""
    token_for(pve, LAUNCHING | {"/vms": [*LAUNCHING["/vms"], "VM.Snapshot"]})
    made = made_from(pve, harness, push(registry, image(layer(), runtime={"Env": ["A=1", "B=1"]})))
    new = push(registry, sample("newer"))
    status, answer = await ask(harness, snapshot=True)
    assert (status, answer["snapshot"]) == (200, next(iter(made.snapshots))), answer
    roll_back(pve.cluster, made, answer["snapshot"])
    assert new in made.config["description"]
    status, answer = await ask(harness)
    assert (status, answer["already"], answer["done"]) == (200, False, True), answer
    assert made.config["env"] == "PATH=/bin\0MINE=yes"
    assert made.config[answer["kept_as"]] == answer["old_root"] == V0


async def test_name_given_again(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A new root that has the name of one destroyed long ago is not taken for that one."""
    made = made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    status, first = await ask(harness)
    del pve.cluster.volumes[made.config.pop(first["kept_as"])]
    push(registry, sample("newest"))
    status, second = await ask(harness)
    assert (status, second["new_root"]) == (200, V0)
    status, answer = await ask(harness)
    assert (status, answer["already"]) == (200, True)


async def test_stopped(pve: Pve, harness: Harness, registry: Registry) -> None:
    """Of a container that does not run it is said that nothing is waited for."""
    made = made_from(pve, harness, push(registry, sample()))
    made.running = False
    push(registry, sample("newer"))
    for dry_run in (True, False):
        status, answer = await ask(harness, wait_for="http:80/", dry_run=dry_run)
        assert status == 200, answer
        assert any("nothing is waited for" in warning for warning in answer["warnings"])
    assert not made.running


async def test_side_by_side(pve: Pve, harness: Harness, registry: Registry) -> None:
    """A new container beside the old one is answered as one that was created."""
    made = made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    before = dict(made.config)
    status, answer = await ask(harness, side_by_side=True, keep=60)
    assert (status, "leaves that one as it is" in answer["error"]) == (400, True)
    status, answer = await ask(harness, side_by_side=True)
    assert (status, answer["vmid"], answer["hostname"]) == (201, 101, "web")
    assert made.config == before


@pytest.fixture
def behind(pve: Pve, harness: Harness, registry: Registry) -> dict[int, dict[str, Any]]:
    """Put containers on the cluster of which 100 and 102 are behind; return all configurations."""
    old = push(registry, sample())
    first = made_from(pve, harness, old)
    new = push(registry, sample("newer"))
    for vmid, digest in {101: new, 102: old, 103: None}.items():
        origin = f"syncd: {harness.latest}@{digest}" if digest else "somebody's"
        config = first.config | {"description": origin}
        pve.cluster.containers[vmid] = Container(vmid, "pve1", config)
    return {vmid: dict(one.config) for vmid, one in pve.cluster.containers.items()}


async def ask_behind(harness: Harness, **fields: Any) -> tuple[int, Any]:
    path = "/api/v1/containers/replace"
    answer = await harness.ask("POST", path, json={"ref": str(harness.latest)} | fields)
    return answer.status, described(answer, path)


async def test_behind(pve: Pve, harness: Harness, behind: dict[int, dict[str, Any]]) -> None:
    """Behind a tag are the containers whose description names another digest of that tag."""
    status, answer = await ask_behind(harness, dry_run=True)
    assert (status, [one["vmid"] for one in answer["replaced"]]) == (200, [100, 102])
    status, answer = await ask_behind(harness)
    assert (status, [one["done"] for one in answer["replaced"]]) == (200, [True, True])
    changed = [vmid for vmid, one in pve.cluster.containers.items() if one.config != behind[vmid]]
    assert changed == [100, 102]
    assert (await ask_behind(harness))[1] == {
        "replaced": [],
        "failed": None,
        "error": None,
        "left": [],
    }


async def test_end_of_row(pve: Pve, harness: Harness, behind: dict[int, dict[str, Any]]) -> None:
    """The first that cannot be replaced ends the row, and what was not begun is named."""
    pve.cluster.containers[100].config["lock"] = "backup"
    status, answer = await ask_behind(harness)
    assert (status, answer["failed"], answer["left"]) == (502, 100, [102])
    assert "container 100 is locked (backup)" in answer["error"]
    assert pve.cluster.containers[102].config == behind[102]


async def test_behind_nothing(harness: Harness) -> None:
    """Without a tag nothing can be behind."""
    answer = await harness.ask("POST", "/api/v1/containers/replace", json={})
    assert (answer.status, "ref" in await answer.text()) == (400, True)


async def test_resumed(pve: Pve, harness: Harness, registry: Registry) -> None:
    """What a process left is ended by the next one; what cannot be ended now is left."""
    made = made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    services = harness.services
    plan = await services.roots.replace(100, ReplaceOptions(dry_run=True), Cause.CLI)
    assert plan.swap is not None
    services.ledger.replacements.put(Replacement("cluster", plan.swap))
    services.ledger.replacements.put(Replacement("gone", plan.swap))
    made.running = False
    pve.cluster.nodes["pve1"].online = False
    left = await services.roots.resume()
    assert [found.is_open for found in left] == [True, True]
    assert all(found.reason for found in left)
    pve.cluster.nodes["pve1"].online = True
    ended, lost = sorted(await services.roots.resume(), key=lambda found: found.target)
    assert ended.state is ReplacementState.UNDONE
    assert "no cluster is configured as target 'gone'" in lost.reason
    assert made.running
    assert [left.target for left in services.ledger.replacements.of(*UNFINISHED)] == ["gone"]


async def test_old_root_due(pve: Pve, harness: Harness, registry: Registry) -> None:
    """An old root that was kept long enough is removed by the next sweep, and no sooner."""
    made_from(pve, harness, push(registry, sample()))
    push(registry, sample("newer"))
    await ask(harness, keep=3600)
    services = harness.services
    assert await services.roots.remove_due() == []
    (done,) = services.ledger.replacements.of(ReplacementState.REPLACED)
    assert done.ended is not None
    services.ledger.replacements.put(replace(done, ended=done.ended.replace(year=2020)))
    assert len(await services.roots.remove_due()) == 1
    assert V0 not in pve.cluster.volumes
    assert await services.roots.remove_due() == []
