"""What the test double of Proxmox VE does with snapshots, seen through the real proxmoxer."""

from typing import Any

import pytest
from proxmoxer import ResourceException

from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage
from tests.fakes.pve_schema import assert_contract
from tests.targets.proxmox.test_root_swapper import DATA, OLD, SNAPPING, V0, container

ROLE = {"/vms": SNAPPING["/vms"]}


@pytest.fixture
def guest(pve: Pve) -> Any:
    """Put container 100 on the cluster; return its calls for a token that may take snapshots."""
    container(pve, running=False)
    return pve.client(pve.cluster.token("syncd@pve!sync", ROLE)).nodes("pve1").lxc(100)


def take(pve: Pve, guest: Any, name: str = "before") -> str | None:
    return pve.cluster.result(guest.snapshot.post(snapname=name))


def test_taken(pve: Pve, guest: Any) -> None:
    """A snapshot has the configuration and the volumes, is listed, and is the parent."""
    assert guest.feature.get(feature="snapshot") == {"hasFeature": 1}
    assert take(pve, guest) == "OK"
    assert [entry["name"] for entry in guest.snapshot.get()] == ["before", "current"]
    kept = guest.config.get(snapshot="before")
    assert (kept["rootfs"].split(",")[0], "description" in kept) == (V0, False)
    now = guest.config.get(current=1)
    assert now["parent"] == "before"
    assert pve.cluster.volumes[V0].snapshots == {"before": OLD}
    assert_contract(pve)


def test_deleted(pve: Pve, guest: Any) -> None:
    """A volume that nothing else has any more is unused once its last snapshot is deleted."""
    take(pve, guest)
    guest.config.put(delete="mp0")
    assert "unused0" not in guest.config.get(current=1)
    assert pve.cluster.result(guest.snapshot("before").delete()) == "OK"
    now = guest.config.get(current=1)
    assert (now["unused0"], "parent" in now) == (DATA, False)
    assert pve.cluster.volumes[V0].snapshots == {}


def test_unused_kept(pve: Pve, guest: Any) -> None:
    """The key of an unused volume that a snapshot has goes, and the volume stays."""
    take(pve, guest)
    guest.config.put(unused9=DATA, delete="mp0")
    guest.config.put(delete="unused9")
    assert "unused9" not in guest.config.get(current=1)
    assert DATA in pve.cluster.volumes


@pytest.mark.parametrize(
    ("options", "name", "ended"),
    [
        ({"lock": "backup"}, "a1", "CT is locked (backup)"),
        ({"template": 1}, "a1", "you can't take a snapshot if it's a template"),
        ({}, "before", "snapshot name 'before' already used"),
        ({"mp1": "files:100/a.raw,mp=/b"}, "a1", "snapshot feature is not available"),
        ({"mp1": "/srv,mp=/b"}, "a1", "snapshot feature is not available"),
    ],
)
def test_task_fails(pve: Pve, guest: Any, options: dict[str, Any], name: str, ended: str) -> None:
    """What is found out by the task ends the task, and leaves no lock."""
    pve.cluster.storage(Storage("files", "dir", ("rootdir",)))
    take(pve, guest)
    pve.cluster.containers[100].config |= options
    assert take(pve, guest, name) == ended
    assert pve.cluster.containers[100].config.get("lock") == options.get("lock")
    assert list(pve.cluster.containers[100].snapshots) == ["before"]


@pytest.mark.parametrize("name", ["current", "vzdump"])
def test_reserved(guest: Any, name: str) -> None:
    """The call itself refuses names that Proxmox VE needs."""
    with pytest.raises(ResourceException, match="reserved name"):
        guest.snapshot.post(snapname=name)


def test_refused(pve: Pve, guest: Any) -> None:
    """An absent snapshot, one asked for with `current`, and a lack of privileges are refused."""
    assert pve.cluster.result(guest.snapshot("none").delete()) == "snapshot 'none' does not exist"
    with pytest.raises(ResourceException, match="does not exist"):
        guest.config.get(snapshot="none")
    take(pve, guest)
    with pytest.raises(ResourceException) as refusal:
        guest.config.get(snapshot="before", current=1)
    assert refusal.value.status_code == 400
    pve.cluster.token("syncd@pve!sync", {"/vms": ["VM.Audit", "VM.Config.Options"]})
    for call in (lambda: guest.snapshot.post(snapname="a1"), guest.snapshot("before").delete):
        with pytest.raises(ResourceException, match=r"VM\.Snapshot"):
            call()
