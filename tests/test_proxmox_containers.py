"""Containers made from published templates on the test double's cluster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from syncd.container import Container, ContainerRequest, Startup
from syncd.errors import PublishError, RequestError, TargetUnavailableError
from syncd.job import Silence
from syncd.proxmox import ProxmoxTarget
from syncd.template import Format, Volume
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import GIB, Token
from tests.targets import CONTENT, CREATING, target_on, token_for, when_asked

VOLID = "cephfs:vztmpl/image.tar.zst"
TEMPLATE = Volume(VOLID, len(CONTENT))
STARTUP = Startup("/bin/app --serve", "PATH=/bin\0LANG=C")


@pytest.fixture
def token(pve: Pve) -> Token:
    for volid in (VOLID, "local:vztmpl/image.tar.zst"):
        template = pve.cluster.template(volid, "pve1")
        template.parent.mkdir(parents=True)
        template.write_bytes(CONTENT)
    return token_for(pve, CREATING)


@pytest.fixture
def target(pve: Pve, token: Token, tmp_path: Path) -> ProxmoxTarget:
    return target_on(pve, tmp_path, storage="cephfs")


def create(
    target: ProxmoxTarget,
    form: Format = Format.OCI,
    volumes: tuple[Volume, ...] = (TEMPLATE,),
    startup: Startup = STARTUP,
    **fields: Any,
) -> Container:
    request = ContainerRequest.parse({"hostname": "web"} | fields)
    return target.create(request, volumes, form, startup, Silence())


def creations(pve: Pve) -> list[dict[str, str]]:
    return [r.params for r in pve.requests if r.method == "POST" and r.path.endswith("/lxc")]


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
def test_defaults(pve: Pve, target: ProxmoxTarget) -> None:
    """A host name is enough: the rest is what the web UI would say."""
    pve.cluster.nodes["pve2"].mem = 1 * GIB
    made = create(target)
    assert made == Container(100, "pve2", "web", VOLID, "debian", running=False)
    assert creations(pve) == [
        {
            "vmid": "100",
            "ostemplate": VOLID,
            "hostname": "web",
            "cores": "1",
            "memory": "512",
            "rootfs": "local-zfs:8",
            "net0": "name=eth0,ip=dhcp,bridge=vmbr0",
            "unprivileged": "1",
        }
    ]


def test_all_options(pve: Pve, target: ProxmoxTarget) -> None:
    """Everything that was asked for arrives, in the words of the API."""
    made = create(
        target,
        node="pve1",
        vmid=200,
        cores=4,
        memory=2048,
        swap=0,
        size=20,
        storage="local-zfs",
        bridge="vmbr7",
        features="nesting=1",
        tags=["owner", "web"],
        ssh_keys=["ssh-ed25519 AAAA a@b", "ssh-ed25519 BBBB c@d"],
        start=True,
    )
    assert (made.vmid, made.node, made.running, made.warnings) == (200, "pve1", True, ())
    (sent,) = creations(pve)
    assert sent["net0"] == "name=eth0,ip=dhcp,bridge=vmbr7"
    assert sent["rootfs"] == "local-zfs:20"
    assert sent["tags"] == "owner;web"
    assert sent["ssh-public-keys"] == "ssh-ed25519 AAAA a@b\nssh-ed25519 BBBB c@d"
    assert (sent["swap"], sent["features"]) == ("0", "nesting=1")
    assert pve.cluster.containers[200].running


def test_whole_net0(pve: Pve, target: ProxmoxTarget) -> None:
    """A network line of one's own replaces the default one."""
    line = "name=eth0,bridge=vmbr0,ip=10.0.0.9/24,gw=10.0.0.1,tag=5"
    create(target, net0=line)
    assert creations(pve)[0]["net0"] == line


@pytest.mark.parametrize(
    ("pve", "form", "sent", "warned"),
    [
        ("9.2.11", Format.ROOTFS, True, False),
        ("9.2.11", Format.OCI, False, False),
        ("8.4.5", Format.ROOTFS, False, True),
    ],
    indirect=["pve"],
)
def test_startup(pve: Pve, target: ProxmoxTarget, form: Format, sent: bool, warned: bool) -> None:
    """Entrypoint and env are given beside a rootfs template where the API has them, or told."""
    made = create(target, form)
    (request,) = creations(pve)
    assert request.get("entrypoint") == (STARTUP.entrypoint if sent else None)
    assert request.get("env") == (STARTUP.env if sent else None)
    assert ("no parameter for the image's entrypoint and env" in str(made.warnings)) is warned


def test_vmid_taken(pve: Pve, target: ProxmoxTarget, token: Token) -> None:
    """A VMID that another client takes in between is not the end; one that was asked for is."""
    other = pve.client(token)

    def take() -> None:
        fields = {"vmid": 100, "ostemplate": VOLID, "unprivileged": 1, "rootfs": "local-zfs:8"}
        other.nodes("pve1").lxc.post(**fields)

    when_asked(pve, "/lxc", take)
    assert create(target).vmid == 101
    with pytest.raises(PublishError, match="CT 100 already exists"):
        create(target, vmid=100)


def test_many_at_a_time(target: ProxmoxTarget) -> None:
    """Creations at a time get different VMIDs."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: create(target, hostname=f"web{n}"), range(4)))
    assert sorted(one.vmid for one in made) == [100, 101, 102, 103]


def test_local_template(pve: Pve, target: ProxmoxTarget) -> None:
    """A template on a storage that is not shared binds the container to the template's node."""
    pve.cluster.nodes["pve2"].mem = 0
    local = (Volume("local:vztmpl/image.tar.zst", len(CONTENT), "pve1"),)
    assert create(target, volumes=local).node == "pve1"
    with pytest.raises(TargetUnavailableError, match="node 'pve2'"):
        create(target, volumes=local, node="pve2")


@pytest.mark.parametrize("privileged", [True, False])
def test_busy_node(pve: Pve, target: ProxmoxTarget, token: Token, privileged: bool) -> None:
    """Without Sys.Audit nobody tells how much memory a node has free; then any online one does."""
    pve.cluster.nodes["pve2"].mem = 15 * GIB
    if not privileged:
        token.acl["/nodes"] = frozenset()
    assert create(target).node == ("pve1" if privileged else "pve2")


def test_offline_node(pve: Pve, target: ProxmoxTarget) -> None:
    """An offline node is not chosen, and asking for it is a passing trouble."""
    pve.cluster.nodes["pve2"].online = False
    assert create(target).node == "pve1"
    with pytest.raises(TargetUnavailableError, match="bring the node up"):
        create(target, node="pve2")


def test_failure(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation that fails is told with its log's last lines, and leaves nothing."""
    pve.cluster.create_failure = "unsupported distribution 'foo'"
    with pytest.raises(PublishError, match=r"unsupported distribution 'foo'.*log ends: .*TASK ERR"):
        create(target)
    assert pve.cluster.containers == {}


def test_half_made(pve: Pve, target: ProxmoxTarget) -> None:
    """What a failed creation left behind is removed."""
    pve.cluster.create_failure = "disk is full"
    pve.cluster.create_leaves = True
    with pytest.raises(PublishError, match="disk is full") as failure:
        create(target)
    assert "half-made" not in str(failure.value)
    assert pve.cluster.containers == {}


def test_unmanaged(pve: Pve, target: ProxmoxTarget) -> None:
    """A distribution that was not recognised is reported."""
    pve.cluster.ostype = "unmanaged"
    made = create(target)
    assert made.ostype == "unmanaged"
    assert "did not recognise the distribution" in made.warnings[0]


def test_warnings(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation with warnings is a success whose warnings are passed on."""
    pve.cluster.create_warnings = ("old distribution",)
    assert "WARN: old distribution" in create(target).warnings[0]


def test_not_started(pve: Pve, target: ProxmoxTarget) -> None:
    """A container that does not start stays, and it is said."""
    pve.cluster.start_failure = "startup for container '100' failed"
    made = create(target, start=True)
    assert not made.running
    assert "did not start: startup for container '100' failed" in made.warnings[0]
    assert list(pve.cluster.containers) == [100]


@pytest.mark.parametrize("features", ["keyctl=1,nesting=1", "fuse=1"])
def test_features(pve: Pve, target: ProxmoxTarget, features: str) -> None:
    """Features that only root@pam may set are refused before anything is made."""
    with pytest.raises(RequestError, match="are refused to API tokens"):
        create(target, features=features)
    assert creations(pve) == []


def test_no_privilege(target: ProxmoxTarget, token: Token) -> None:
    """A privilege that lacks is named with the command that grants it."""
    token.acl["/vms"] -= {"VM.Config.Network"}
    with pytest.raises(PublishError, match=r"VM\.Config\.Network.*pveum acl modify /vms --roles"):
        create(target)


def test_answer_lost(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation whose answer got lost is found by its task, not repeated."""
    when_asked(pve, "/lxc", lambda: setattr(pve.cluster, "lost_answers", 1))
    assert create(target).vmid == 100
    assert len(creations(pve)) == 1


def test_broken_off(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation that broke off before it began is a passing trouble."""
    when_asked(pve, "/lxc", lambda: setattr(pve.cluster, "hang_ups", 1))
    with pytest.raises(TargetUnavailableError, match="left no task"):
        create(target)
    assert pve.cluster.containers == {}
