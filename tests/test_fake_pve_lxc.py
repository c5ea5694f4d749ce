"""What the test double of Proxmox VE does with containers, seen through the real proxmoxer."""

from pathlib import Path
from typing import Any

import pytest
from proxmoxer import ResourceException

from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Token

VOLID = "cephfs:vztmpl/image.tar.zst"
CREATOR = {
    "/storage": ["Datastore.Audit", "Datastore.AllocateSpace"],
    "/sdn/zones/localnetwork/vmbr0": ["SDN.Use"],
    "/vms": [
        "VM.Allocate",
        "VM.Audit",
        "VM.Config.CPU",
        "VM.Config.Disk",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.PowerMgmt",
    ],
}
WANTED: dict[str, Any] = {
    "vmid": 100,
    "ostemplate": VOLID,
    "hostname": "web",
    "cores": 2,
    "memory": 512,
    "net0": "name=eth0,bridge=vmbr0,ip=dhcp",
    "rootfs": "local-zfs:8",
    "unprivileged": 1,
    "features": "nesting=1",
    "tags": "owner",
}


def creator(pve: Pve) -> Token:
    """Put a template on the shared storage; return a token that may make containers of it."""
    template = pve.cluster.template(VOLID, "pve1")
    template.parent.mkdir(parents=True)
    template.write_bytes(b"template")
    return pve.cluster.token("syncd@pve!create", CREATOR)


@pytest.fixture
def token(pve: Pve) -> Token:
    return creator(pve)


@pytest.fixture
def api(pve: Pve, token: Token) -> Any:
    return pve.client(token)


def create(api: Any, **changes: object) -> str:
    return str(api.nodes("pve1").lxc.post(**{**WANTED, **changes}))


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
def test_life(pve: Pve, api: Any) -> None:
    """A container is created, started, stopped and destroyed, each by a task."""
    guest = api.nodes("pve1").lxc(100)
    assert pve.cluster.result(create(api)) == "OK"
    config = guest.config.get()
    assert (config["ostype"], config["hostname"], config["cores"]) == ("debian", "web", 2)
    assert api.nodes("pve1").lxc.get()[0]["status"] == "stopped"
    assert pve.cluster.result(guest.status.start.post()) == "OK"
    assert guest.status.current.get()["status"] == "running"
    with pytest.raises(ResourceException, match="is running"):
        guest.delete()
    assert pve.cluster.result(guest.status.stop.post()) == "OK"
    assert pve.cluster.result(guest.delete()) == "OK"
    with pytest.raises(ResourceException, match="does not exist"):
        guest.config.get()


def test_start_at_once(pve: Pve, api: Any) -> None:
    """With `start`, the creation starts a task of its own kind, and does not answer for it."""
    pve.cluster.start_failure = "startup for container '100' failed"
    assert pve.cluster.result(create(api, start=1)) == "OK"
    (started,) = [task for task in pve.cluster.tasks.values() if task.type == "vzstart"]
    assert pve.cluster.result(started.upid) == "startup for container '100' failed"
    assert not pve.cluster.containers[100].running


def test_next_id(pve: Pve, api: Any) -> None:
    """The next free VMID is a number, and free only until another client takes it."""
    assert api.cluster.nextid.get() == 100
    pve.cluster.result(create(api))
    assert api.cluster.nextid.get() == 101
    with pytest.raises(ResourceException, match="already exists"):
        api.cluster.nextid.get(vmid=100)
    with pytest.raises(ResourceException, match=r"500 .*CT 100 already exists on node 'pve1'"):
        create(api)


def test_creation_fails(pve: Pve, api: Any) -> None:
    """A failing creation is a task's `exitstatus`, the reason is in its log, and nothing stays."""
    pve.cluster.create_failure = "unsupported distribution 'foo'"
    upid = create(api)
    assert pve.cluster.result(upid) == "unable to create CT 100 - unsupported distribution 'foo'"
    log = api.nodes("pve1").tasks(upid).log.get()
    assert log[-1] == {
        "n": len(log),
        "t": "TASK ERROR: unable to create CT 100 - unsupported distribution 'foo'",
    }
    assert api.nodes("pve1").lxc.get() == []


def test_log_pages(pve: Pve, api: Any) -> None:
    """A task's log comes in pages of 50 lines."""
    pve.cluster.create_warnings = ("careful",) * 60
    upid = create(api)
    assert pve.cluster.result(upid) == "WARNINGS: 60"
    log = api.nodes("pve1").tasks(upid).log
    assert len(log.get()) == 50
    assert log.get(start=60, limit=1) == [{"n": 61, "t": "WARN: careful"}]


def test_unmanaged(pve: Pve, api: Any) -> None:
    """A distribution that PVE does not know makes an `unmanaged` container, with the task OK."""
    pve.cluster.ostype = "unmanaged"
    assert pve.cluster.result(create(api)) == "OK"
    assert api.nodes("pve1").lxc(100).config.get()["ostype"] == "unmanaged"


def test_half_made(pve: Pve, api: Any) -> None:
    """While its task runs, a container is there already, locked."""
    pve.cluster.tasks_may_finish.clear()
    upid = create(api)
    assert api.nodes("pve1").lxc.get()[0]["lock"] == "create"
    pve.cluster.tasks_may_finish.set()
    pve.cluster.result(upid)
    assert "lock" not in api.nodes("pve1").lxc.get()[0]


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"features": "keyctl=1,nesting=1"}, 403, "only allowed for root@pam"),
        ({"unprivileged": 0}, 403, r"\(/, Sys.Modify\)"),
        ({"net0": "name=eth0,bridge=vmbr9"}, 403, "SDN.Use"),
        ({"ostemplate": "cephfs:vztmpl/absent.tar.zst"}, 500, "does not exist"),
        ({"ostemplate": "absent:vztmpl/a.tar"}, 500, "storage 'absent' does not exist"),
        ({"rootfs": "local:8"}, 500, "does not support container directories"),
    ],
)
def test_refused(pve: Pve, api: Any, changes: dict[str, object], status: int, reason: str) -> None:
    """What the call itself is refused for is in its status line, and no task begins."""
    with pytest.raises(ResourceException, match=f"{status} .*{reason}"):
        create(api, **changes)
    assert pve.cluster.tasks == {}


@pytest.mark.parametrize(
    "privilege", ["VM.Allocate", "VM.Config.Network", "VM.Config.CPU", "VM.Config.Options"]
)
def test_privileges(token: Token, api: Any, privilege: str) -> None:
    """Each option needs its own privilege on the container's path; VM.Allocate is not named."""
    token.acl["/vms"] -= {privilege}
    named = "" if privilege == "VM.Allocate" else rf" \(/vms/100, {privilege}\)"
    with pytest.raises(ResourceException, match=rf"Permission check failed{named} - "):
        create(api)


def test_pool(pve: Pve, token: Token, api: Any) -> None:
    """The privileges on a pool do as well, for containers of that pool."""
    token.acl["/pool/web"] = token.acl.pop("/vms")
    assert pve.cluster.result(create(api, pool="web")) == "OK"
    assert pve.cluster.result(api.nodes("pve1").lxc(100).delete()) == "OK"


def test_environment_since_9(tmp_path: Path) -> None:
    """`env` and `entrypoint` came with PVE 9; before, they are no parameters at all."""
    with Pve(tmp_path, version="8.4.5") as old:
        api = old.client(creator(old))
        with pytest.raises(ResourceException) as refusal:
            create(api, env="A=1", entrypoint="/bin/app")
    assert refusal.value.status_code == 400
    assert "not defined in schema" in refusal.value.errors["entrypoint"]


def test_resources(pve: Pve, token: Token, api: Any) -> None:
    """The cluster's resources are those that the token may see, filtered by type."""
    pve.cluster.result(create(api))
    assert [entry["id"] for entry in api.cluster.resources.get(type="vm")] == ["lxc/100"]
    assert api.cluster.resources.get(type="node") == []
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    assert len(api.cluster.resources.get(type="node")) == 2
    assert len(api.cluster.resources.get(type="storage")) == 6
    assert api.nodes.get()[0]["maxmem"] > api.nodes("pve1").status.get()["memory"]["used"]


def test_change(pve: Pve, token: Token, api: Any) -> None:
    """A change of the configuration takes each option's privilege, and waits for the creation."""
    pve.cluster.tasks_may_finish.clear()
    upid = create(api)
    guest = api.nodes("pve1").lxc(100)
    with pytest.raises(ResourceException, match=r"500 .*CT is locked \(create\)"):
        guest.config.put(env="A=1")
    pve.cluster.tasks_may_finish.set()
    pve.cluster.result(upid)
    assert guest.config.put(env="A=1\0B=2", entrypoint="/bin/app") is None
    assert guest.config.get()["env"] == "A=1\0B=2"
    token.acl["/vms"] -= {"VM.Config.Options"}
    with pytest.raises(ResourceException, match=r"\(/vms/100, VM\.Config\.Options\)"):
        guest.config.put(entrypoint="/bin/other")
