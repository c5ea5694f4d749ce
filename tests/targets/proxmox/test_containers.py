"""Containers made from published templates on the test double's cluster."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import PublishError, RequestError, StoppedError, TargetUnavailableError
from syncd.formats import Format
from syncd.progress import Advance, Silence
from syncd.targets.container import Container, ContainerSpec, Startup
from syncd.targets.origin import Origin
from syncd.targets.proxmox.target import ProxmoxTarget
from syncd.targets.target import Volume
from tests.clusters import (
    CONTENT,
    CREATING,
    IMAGE,
    published,
    target_on,
    token_for,
    when_asked,
)
from tests.fakes.pve import CALLS, Pve
from tests.fakes.pve_call import Call
from tests.fakes.pve_cluster import GIB, ApiError, Token

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
    run: Startup = STARTUP,
    **fields: Any,
) -> Container:
    request = ContainerSpec.parse({"hostname": "web"} | fields)
    return target.create(request, published(volumes, form, run), Silence())


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
            "description": f"syncd-request: 0123456789abcdef\nsyncd: {IMAGE}",
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
        net3="name=eth3,bridge=vmbr0,ip=10.0.0.9/24,ip6=auto,mtu=1400,tag=7,firewall=1",
        mp0="local-zfs:4,mp=/srv,backup=1,mountoptions=noatime;nosuid",
        mp12="local-zfs:0.5,mp=/var/log",
        features="nesting=1",
        nameserver="10.0.0.1 fd00::1",
        searchdomain="example.org lan",
        cpulimit=1.5,
        ostype="debian",
        cmode="shell",
        onboot=True,
        startup="order=2,up=30",
        protection=False,
        timezone="Europe/Berlin",
        description="Web server",
        password="correct horse",
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
    assert sent["description"].startswith("Web server\n\nsyncd-request: ")
    assert sent["net3"].endswith("mtu=1400,tag=7,firewall=1")
    assert sent["mp0"] == "local-zfs:4,mp=/srv,backup=1,mountoptions=noatime;nosuid"
    same = {
        "swap": "0", "features": "nesting=1", "nameserver": "10.0.0.1 fd00::1",
        "searchdomain": "example.org lan", "cpulimit": "1.5", "ostype": "debian",
        "cmode": "shell", "onboot": "1", "startup": "order=2,up=30", "protection": "0",
        "timezone": "Europe/Berlin", "password": "correct horse", "mp12":
        "local-zfs:0.5,mp=/var/log",
    }  # fmt: skip
    assert {key: sent[key] for key in same} == same
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
    with pytest.raises(PublishError, match=r"CT 100 already exists.*ask for another VMID"):
        create(target, vmid=100)


def test_many_at_a_time(target: ProxmoxTarget) -> None:
    """Creations at a time get different VMIDs."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda n: create(target, hostname=f"web{n}"), range(4)))
    assert sorted(container.vmid for container in made) == [100, 101, 102, 103]


def test_local_template(pve: Pve, target: ProxmoxTarget) -> None:
    """A template on a storage that is not shared binds the container to the template's node."""
    pve.cluster.nodes["pve2"].mem = 0
    local = (Volume("local:vztmpl/image.tar.zst", len(CONTENT), "pve1"),)
    assert create(target, volumes=local).node == "pve1"
    with pytest.raises(TargetUnavailableError, match="node 'pve2'"):
        create(target, volumes=local, node="pve2")


@pytest.mark.parametrize("privileged", [True, False])
def test_busy_node(pve: Pve, target: ProxmoxTarget, token: Token, privileged: bool) -> None:
    """Without Sys.Audit nobody tells a node's free memory; then the nodes share the containers."""
    pve.cluster.nodes["pve2"].mem = 15 * GIB
    if not privileged:
        token.acl["/nodes"] = frozenset()
    chosen = {create(target, hostname=f"web{n}").node for n in range(8)}
    assert chosen == ({"pve1"} if privileged else {"pve1", "pve2"})


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
    assert create(target).warnings == ("Proxmox VE warns: WARN: old distribution",)


def test_not_started(pve: Pve, target: ProxmoxTarget) -> None:
    """A container that does not start stays, and it is said."""
    pve.cluster.start_failure = "startup for container '100' failed"
    made = create(target, start=True)
    assert not made.running
    assert "did not start: startup for container '100' failed" in made.warnings[0]
    assert list(pve.cluster.containers) == [100]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"features": "keyctl=1,nesting=1"}, "the features keyctl are refused to API tokens"),
        ({"features": "fuse=1"}, "the features fuse are refused to API tokens"),
        ({"mp3": "/srv,mp=/srv"}, "bind mounts are refused to API tokens: mp3"),
        ({"hookscript": "local:snippets/a.sh"}, "a hookscript is refused to API tokens"),
    ],
)
def test_root_only(pve: Pve, target: ProxmoxTarget, fields: dict[str, Any], fault: str) -> None:
    """What only root@pam may set is refused before anything is made."""
    with pytest.raises(RequestError, match=fault):
        create(target, **fields)
    assert creations(pve) == []


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({}, {"net0": "name=eth0,ip=dhcp,bridge=vmbr0"}),
        ({"net1": "name=a"}, {"net1": "name=a"}),
        ({"net1": "name=a", "bridge": "vmbr7"},
         {"net0": "name=eth0,ip=dhcp,bridge=vmbr7", "net1": "name=a"}),
    ],
)  # fmt: skip
def test_networks(
    pve: Pve, target: ProxmoxTarget, fields: dict[str, Any], lines: dict[str, str]
) -> None:
    """An interface that asks DHCP is made where no other is named, or where its bridge is."""
    create(target, **fields)
    (sent,) = creations(pve)
    assert {key: sent[key] for key in sent if key.startswith("net")} == lines


def changes(pve: Pve) -> list[dict[str, str]]:
    return [r.params for r in pve.requests if r.method == "PUT"]


def test_set_after_archive(pve: Pve, target: ProxmoxTarget) -> None:
    """Of an OCI archive, what Proxmox VE overwrites is set after the creation, before the start."""
    pve.cluster.template(ARCHIVE.volid, "pve1").write_bytes(CONTENT)
    pve.cluster.image_config = {"entrypoint": "/bin/app", "env": "PATH=/bin\0TZ=UTC"}
    made = create(
        target, volumes=(ARCHIVE,), env={"TZ": "CET", "A": "b c"}, entrypoint="/bin/x", start=True
    )
    assert (made.running, made.warnings) == (True, ())
    (sent,) = creations(pve)
    assert not {"env", "entrypoint"} & set(sent)
    wanted = {"env": "PATH=/bin\0TZ=CET\0A=b c", "entrypoint": "/bin/x"}
    assert changes(pve) == [wanted]
    assert pve.cluster.containers[100].config.items() >= wanted.items()
    order = [r.path.rpartition("/")[2] for r in pve.requests if r.method in ("POST", "PUT")]
    assert order == ["lxc", "config", "start"]


def test_not_set_after_archive(pve: Pve, target: ProxmoxTarget, token: Token) -> None:
    """A container whose variables could not be set stays, named, and is not started."""
    pve.cluster.template(ARCHIVE.volid, "pve1").write_bytes(CONTENT)
    pve.cluster.image_config = {}

    def take() -> None:
        token.acl["/vms"] -= {"VM.Config.Options"}

    when_asked(pve, "/config", take)
    made = create(target, volumes=(ARCHIVE,), env={"A": "b"}, start=True, node="pve1")
    assert (made.vmid, made.running) == (100, False)
    assert "container 100 was made on pve1, but env could not be set" in made.warnings[0]
    assert not pve.cluster.containers[100].running


def test_set_with_rootfs(pve: Pve, target: ProxmoxTarget) -> None:
    """Of a root file system, everything is set by the creation; the request's own counts."""
    create(target, Format.ROOTFS, env={"LANG": "de"}, entrypoint="/bin/x")
    (sent,) = creations(pve)
    assert (sent["env"], sent["entrypoint"]) == ("PATH=/bin\0LANG=de", "/bin/x")
    assert changes(pve) == []


@pytest.mark.parametrize(
    "case",
    [
        ("", {}, "nesting=1"),
        ("/lib/systemd/systemd --unit=a", {}, "nesting=1"),
        ("/bin/app", {}, None),
        ("/bin/app", {"entrypoint": "/sbin/init"}, "nesting=1"),
        ("", {"entrypoint": "/bin/app"}, None),
        ("", {"features": "nesting=0"}, "nesting=0"),
        ("", {"unprivileged": False}, None),
    ],
)
def test_nesting(
    pve: Pve,
    target: ProxmoxTarget,
    token: Token,
    case: tuple[str, dict[str, Any], str | None],
) -> None:
    """An unprivileged container that runs an init may nest, unless features were asked for."""
    entrypoint, fields, features = case
    token.acl["/"] = frozenset({"Sys.Modify"})
    create(target, Format.ROOTFS, run=Startup(entrypoint), **fields)
    assert creations(pve)[0].get("features") == features


@pytest.mark.parametrize(
    "case",
    [
        (Format.ROOTFS, "/bin/app", {}, "console", "bridge=vmbr0,host-managed=1"),
        (Format.ROOTFS, "/bin/app", {"cmode": "tty"}, "tty", "host-managed=1"),
        (Format.ROOTFS, "/bin/app", {"net0": "name=a,host-managed=0"}, "console", "managed=0"),
        (Format.ROOTFS, "", {"entrypoint": "/bin/app"}, "console", "host-managed=1"),
        (Format.ROOTFS, "", {}, None, "bridge=vmbr0"),
        (Format.ROOTFS, "/bin/app", {"entrypoint": "/sbin/init"}, None, "bridge=vmbr0"),
        (Format.OCI, "/bin/app", {}, None, "bridge=vmbr0"),
    ],
)
def test_like_an_archive(
    pve: Pve,
    target: ProxmoxTarget,
    case: tuple[Format, str, dict[str, Any], str | None, str],
) -> None:
    """An application of a root file system gets the console and network that an archive gets."""
    form, entrypoint, fields, cmode, net0 = case
    create(target, form, run=Startup(entrypoint), **fields)
    (sent,) = creations(pve)
    assert sent.get("cmode") == cmode
    assert sent["net0"].endswith(net0)


@pytest.mark.parametrize("pve", ["8.4.5"], indirect=True)
def test_not_like_an_archive(pve: Pve, target: ProxmoxTarget) -> None:
    """Where the API has no parameter for the entrypoint, the container runs an init, as it is."""
    create(target, Format.ROOTFS)
    (sent,) = creations(pve)
    assert "cmode" not in sent
    assert sent["net0"] == "name=eth0,ip=dhcp,bridge=vmbr0"


@pytest.mark.parametrize("pve", ["8.4.5"], indirect=True)
def test_set_too_early(pve: Pve, target: ProxmoxTarget) -> None:
    """Where the API has no parameter for what was asked for, nothing is made."""
    with pytest.raises(RequestError, match=r"no parameter for entrypoint and env; upgrade to 9\.1"):
        create(target, Format.ROOTFS, env={"A": "b"}, entrypoint="/bin/x")
    assert creations(pve) == []


def test_calls(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation takes at most 12 calls, without those that wait for a task."""
    pve.cluster.template(ARCHIVE.volid, "pve1").write_bytes(CONTENT)
    create(target, volumes=(ARCHIVE,), env={"A": "b"}, start=True)
    calls = [f"{r.method} {r.path}" for r in pve.requests if not r.path.endswith("/status")]
    assert len(calls) <= 12, calls


def test_privileged(pve: Pve, target: ProxmoxTarget, token: Token) -> None:
    """A privileged container from an OCI archive is refused before anything is made."""
    token.acl["/"] = frozenset({"Sys.Modify"})
    pve.cluster.template(ARCHIVE.volid, "pve1").write_bytes(CONTENT)
    with pytest.raises(RequestError, match='format = "rootfs"'):
        create(target, volumes=(ARCHIVE,), unprivileged=False)
    assert creations(pve) == []
    made = create(target, form=Format.ROOTFS, unprivileged=False)
    assert pve.cluster.containers[made.vmid].config["unprivileged"] == 0


def test_no_privilege(target: ProxmoxTarget, token: Token) -> None:
    """A privilege that lacks is named with the command that grants it."""
    token.acl["/vms"] -= {"VM.Config.Network"}
    with pytest.raises(PublishError, match=r"VM\.Config\.Network.*pveum acl modify /vms --roles"):
        create(target)


def test_bare_refusal(target: ProxmoxTarget, token: Token) -> None:
    """A refusal without path and privilege is explained by what the token lacks."""
    token.acl["/vms"] -= {"VM.Allocate"}
    with pytest.raises(
        PublishError, match=r"VM\.Allocate on /vms is missing; grant it: .*VM\.Audit,"
    ) as refusal:
        create(target)
    assert "b''" not in str(refusal.value)


def test_bare_refusal_privileged(
    pve: Pve, target: ProxmoxTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a privileged container takes in addition is named, too."""

    def refuse(_: Call) -> None:
        raise ApiError(403, "Permission check failed")

    monkeypatch.setitem(CALLS, ("POST", "/nodes/{node}/lxc"), refuse)
    with pytest.raises(PublishError, match=r"Sys\.Modify on / is missing"):
        create(target, form=Format.ROOTFS, unprivileged=False)
    with pytest.raises(PublishError, match=r"Permission check failed$"):
        create(target, net0="name=eth0")


ARCHIVE = Volume("cephfs:vztmpl/image.tar", len(CONTENT))


@pytest.mark.parametrize("privilege", ["VM.Audit", "VM.Config.Options"])
def test_unreadable_before(pve: Pve, target: ProxmoxTarget, token: Token, privilege: str) -> None:
    """Without a privilege to read what is made, nothing is made."""
    pve.cluster.template(ARCHIVE.volid, "pve1").write_bytes(CONTENT)
    token.acl["/vms"] -= {privilege}
    with pytest.raises(PublishError, match=rf"{privilege} on /vms is missing; grant it: pveum"):
        create(target, volumes=(ARCHIVE,))
    assert creations(pve) == []
    token.acl["/pool/web"] = frozenset(CREATING["/vms"])
    assert create(target, volumes=(ARCHIVE,), pool="web").ostype == "debian"


@pytest.mark.parametrize("privilege", ["VM.Audit", "VM.Config.Options"])
def test_unreadable_after(pve: Pve, target: ProxmoxTarget, token: Token, privilege: str) -> None:
    """A container whose configuration cannot be read was made all the same, and is named."""
    pve.cluster.template(ARCHIVE.volid, "pve1").write_bytes(CONTENT)
    when_asked(pve, "/config", lambda: token.acl.update({"/vms": token.acl["/vms"] - {privilege}}))
    made = create(target, volumes=(ARCHIVE,), node="pve1")
    assert (made.vmid, made.node, made.ostype) == (100, "pve1", "")
    (warning,) = made.warnings
    assert "container 100 was made on pve1, but its configuration cannot be read" in warning
    assert privilege in warning


def test_stopped(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation that syncd no longer waits for is named by its VMID and node."""

    class Stopping:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            def advance(amount: int) -> None:
                raise StoppedError("stopping")

            return advance

    pve.cluster.tasks_may_finish.clear()
    request = ContainerSpec(hostname="web", node="pve1")
    with pytest.raises(TargetUnavailableError, match="container 100 is being made on pve1"):
        target.create(request, published([TEMPLATE]), Stopping())


def test_nobody_tells(pve: Pve, target: ProxmoxTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that no longer answers after the creation began does not hide the VMID."""
    monkeypatch.setattr("syncd.targets.proxmox.tasks._PATIENCE", 0.0)
    refusal = ApiError(595, "No route to host")
    when_asked(pve, "/status", lambda: setattr(pve.cluster, "refusal", refusal))
    with pytest.raises(TargetUnavailableError, match="container 100 is being made on pve1"):
        create(target, node="pve1")


def test_hidden_rootfs_storage(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A root file systems' storage that is hidden is granted as creation needs it."""
    token.acl["/storage"] = frozenset()
    token.acl["/storage/cephfs"] = frozenset({"Datastore.Audit"})
    target = target_on(pve, tmp_path, storage="cephfs", rootfs_storage="local-zfs")
    with pytest.raises(PublishError, match=r"--privs Datastore\.AllocateSpace;.*/local-zfs"):
        create(target)


def test_answer_lost(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation whose answer got lost is found by its task, not repeated."""
    when_asked(pve, "/lxc", lambda: setattr(pve.cluster, "lost_answers", 1))
    assert create(target).vmid == 100
    assert len(creations(pve)) == 1


def test_answer_lost_to_another(pve: Pve, target: ProxmoxTarget, token: Token) -> None:
    """A container of another request is not taken for ours, though it has the VMID and the name."""
    other = pve.client(token)

    def take() -> None:
        fields = {"vmid": 100, "ostemplate": VOLID, "unprivileged": 1, "rootfs": "local-zfs:8"}
        description = Origin(IMAGE, "another").ending("")
        other.nodes("pve1").lxc.post(**fields, hostname="web", description=description)
        pve.cluster.hang_ups = 1

    when_asked(pve, "/lxc", take)
    with pytest.raises(TargetUnavailableError, match="left no container"):
        create(target, node="pve1")


def test_broken_off(pve: Pve, target: ProxmoxTarget) -> None:
    """A creation that broke off before it began is a passing trouble."""
    when_asked(pve, "/lxc", lambda: setattr(pve.cluster, "hang_ups", 1))
    with pytest.raises(TargetUnavailableError, match="left no container"):
        create(target)
    assert pve.cluster.containers == {}
