"""Root on a Proxmox VE host: asking through pvesh, writing into the storages' folders.

`pvesh` is a small program here (`tests.fakes.pvesh`); proxmoxer's `local` backend runs it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.config.target_settings import ProxmoxTargetSettings
from syncd.errors import PublishError, RequestError
from syncd.formats import Format
from syncd.progress import Silence
from syncd.targets.container import ContainerSpec, Startup
from syncd.targets.proxmox.answers import NodeStorage
from syncd.targets.proxmox.client import Client
from syncd.targets.proxmox.root_swapper import RootSwapper
from syncd.targets.proxmox.target import ProxmoxTarget
from syncd.targets.target import Volume
from tests.clusters import CONTENT, NAME, arguments, names_on, published, uploads
from tests.fakes.pve import CALLS, Pve
from tests.fakes.pve_cluster import Storage
from tests.fakes.pvesh import install_pvesh
from tests.targets.proxmox.test_root_swapper import SNAPPED, container, plan, run


@pytest.fixture
def pvesh(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be root on a host that has a `pvesh`, which passes its calls on to the cluster."""
    folder = tmp_path / "bin"
    folder.mkdir()
    install_pvesh(pve, folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(socket, "gethostname", lambda: "pve1")


def settings(**changes: Any) -> ProxmoxTargetSettings:
    return ProxmoxTargetSettings(name="here", type="proxmox", **changes)


@pytest.mark.usefixtures("pvesh")
def test_asked() -> None:
    """Without endpoints root on a host asks through pvesh, and gets the same answers."""
    client = Client(settings())
    assert client.is_local
    assert client.version() == (9, 2)
    shown = client.get("nodes/pve1/storage", list[NodeStorage], content="vztmpl", enabled=1)
    assert {entry["storage"] for entry in shown} == {"local", "cephfs"}
    with pytest.raises(PublishError, match="hostname lookup 'absent' failed"):
        client.get("nodes/absent/storage", list[NodeStorage])


@pytest.mark.usefixtures("pvesh")
def test_complaints(tmp_path: Path) -> None:
    """A complaint on stderr is no failure of a call that ended with status 0."""
    assert Client(settings()).version() == (9, 2)
    script = tmp_path / "bin" / "pvesh"
    script.write_text(script.read_text().replace('!= "C"', '== "C"'))
    assert Client(settings()).version() == (9, 2)
    script.write_text('#!/bin/sh\necho "$LC_ALL" >&2; exit 3\n')
    with pytest.raises(PublishError, match=r"500 C$"):
        Client(settings()).version()
    script.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(PublishError, match="pvesh ended with status 3"):
        Client(settings()).version()


def test_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without endpoints, and not root on a Proxmox VE host, it is said what to configure."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PublishError, match="configure endpoints, token_id"):
        Client(settings()).version()


@pytest.mark.usefixtures("pvesh")
def test_shared(pve: Pve, tmp_path: Path) -> None:
    """A shared storage's folder is written, listed, read again and deleted from."""
    pve.cluster.storage(Storage("shared", "dir", shared=True))
    pve.cluster.template(f"shared:vztmpl/{NAME}", "pve1").parent.mkdir(parents=True)
    target = ProxmoxTarget(settings(storage="shared"), tmp_path / "locks")
    (volume,) = target.publish(*arguments(tmp_path), Silence())
    assert volume == Volume(f"shared:vztmpl/{NAME}", len(CONTENT))
    assert target.local(NAME) is not None
    assert uploads(pve) == []
    target.delete(volume)
    assert names_on(pve, "shared", "pve1") == []
    assert all(result.ok for result in target.check())


@pytest.mark.usefixtures("pvesh")
def test_calls(pve: Pve, tmp_path: Path) -> None:
    """A template takes 6 runs of pvesh, each of which takes a second, and a container 8."""
    pve.cluster.storage(Storage("shared", "dir", shared=True))
    pve.cluster.template(f"shared:vztmpl/{NAME}", "pve1").parent.mkdir(parents=True)
    target = ProxmoxTarget(settings(storage="shared"), tmp_path / "locks")
    target.format()
    assert target.missing(NAME, None) == ["shared"]
    volumes = target.publish(*arguments(tmp_path), Silence())
    assert target.missing(NAME, len(CONTENT)) == []
    before = len(pve.requests)
    assert before <= 6
    request = ContainerSpec(hostname="web", start=True)
    assert target.create(request, published(volumes, Format.ROOTFS), Silence()).running
    assert len(pve.requests) - before <= 8


@pytest.mark.usefixtures("pvesh")
def test_nothing_printed(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty output of pvesh is an answer that is null: the volume was deleted already."""
    path = "/nodes/{node}/storage/{storage}/content/{volume}"
    monkeypatch.setitem(CALLS, ("DELETE", path), lambda _: None)
    target = ProxmoxTarget(settings(storage="local"), tmp_path / "locks")
    target.delete(Volume(f"local:vztmpl/{NAME}", len(CONTENT), "pve1"))
    assert pve.requests[-1].method == "DELETE"


@pytest.mark.usefixtures("pvesh")
def test_other_nodes(pve: Pve, tmp_path: Path) -> None:
    """A storage of this node's own is written; what is another node's is out of reach."""
    pve.cluster.template(f"local:vztmpl/{NAME}", "pve1").parent.mkdir(parents=True)
    target = ProxmoxTarget(settings(storage="local"), tmp_path / "locks")
    assert [volume.node for volume in target.publish(*arguments(tmp_path), Silence())] == ["pve1"]
    assert target.missing(NAME, len(CONTENT)) == []
    assert "local on pve2 is out of pvesh's reach" in str(target.check())
    pve.cluster.storages["local"].nodes = ("pve2",)
    target._client.forget("*")
    with pytest.raises(PublishError, match=r"pvesh takes no uploads.*configure endpoints"):
        target.publish(*arguments(tmp_path), Silence())


@pytest.mark.usefixtures("pvesh")
@pytest.mark.parametrize("node", ["pve1", "pve2"])
def test_container_elsewhere(pve: Pve, tmp_path: Path, node: str) -> None:
    """A container is made on another node, and removed again, as on this one."""
    file = pve.cluster.template("cephfs:vztmpl/image.tar", "pve1")
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    target = ProxmoxTarget(settings(storage="cephfs"), tmp_path / "locks")
    request = ContainerSpec(hostname="web", node=node)
    template = [Volume("cephfs:vztmpl/image.tar", len(CONTENT))]
    made = target.create(request, published(template), Silence())
    assert (made.vmid, made.node) == (100, node)
    pve.cluster.create_failure = "disk is full"
    pve.cluster.create_leaves = True
    with pytest.raises(PublishError, match="disk is full"):
        target.create(request, published(template, mark="fedcba98"), Silence())
    assert list(pve.cluster.containers) == [100]


@pytest.mark.usefixtures("pvesh")
@pytest.mark.parametrize(("env", "sent"), [("A=1", "A=1"), ("A=1\0B=2", None)])
def test_container(pve: Pve, tmp_path: Path, env: str, sent: str | None) -> None:
    """A container is made as well; several variables cannot be passed, and that is said."""
    file = pve.cluster.template("cephfs:vztmpl/image.tar.zst", "pve1")
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    target = ProxmoxTarget(settings(storage="cephfs"), tmp_path / "locks")
    volume = Volume("cephfs:vztmpl/image.tar.zst", len(CONTENT))
    image = published([volume], Format.ROOTFS, Startup(env=env))
    made = target.create(ContainerSpec(hostname="web"), image, Silence())
    assert ("env is left out" in str(made.warnings)) is (sent is None)
    (request,) = [r for r in pve.requests if r.method == "POST"]
    assert request.params.get("env") == sent


@pytest.mark.usefixtures("pvesh")
@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"password": "correct horse"}, "every user of the node can read"),
        ({"env": {"B": "2"}}, "pvesh takes one variable at most"),
    ],
)
def test_no_arguments(pve: Pve, tmp_path: Path, fields: dict[str, Any], fault: str) -> None:
    """What may be no argument of a program is refused before anything is made."""
    target = ProxmoxTarget(settings(storage="cephfs"), tmp_path / "locks")
    request = ContainerSpec.parse({"hostname": "web"} | fields)
    with pytest.raises(RequestError, match=fault):
        target.create(request, published([], startup=Startup(env="A=1")), Silence())
    assert {call.method for call in pve.requests} <= {"GET"}


@pytest.mark.usefixtures("pvesh")
def test_changed_after(pve: Pve, tmp_path: Path) -> None:
    """Through pvesh an entrypoint is set after the creation, too."""
    volume = Volume("cephfs:vztmpl/image.tar", len(CONTENT))
    file = pve.cluster.template(volume.volid, "pve1")
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    target = ProxmoxTarget(settings(storage="cephfs"), tmp_path / "locks")
    request = ContainerSpec.parse({"hostname": "web", "entrypoint": "/bin/other"})
    made = target.create(request, published([volume]), Silence())
    assert made.warnings == ()
    assert pve.cluster.containers[100].config["entrypoint"] == "/bin/other"


@pytest.mark.usefixtures("pvesh")
@pytest.mark.parametrize("form", [Format.OCI, Format.ROOTFS])
@pytest.mark.parametrize("env", ["A=1", "A=1\0B=2"])
def test_new_root(pve: Pve, form: Format, env: str) -> None:
    """A root is replaced through pvesh, also with several variables where they stay the same."""
    made = container(pve, env=env, cmode="console", entrypoint="/bin/app")
    pve.cluster.image_config["env"] = env
    here = settings(storage="cephfs")
    swaps = RootSwapper(Client(here), here)
    startup = Startup(entrypoint="/bin/app", env=env)
    order = replace(SNAPPED, form=form, startup=startup, old_startup=startup)
    swap = run(swaps, plan(swaps, order))
    assert swaps.is_swapped(swap)
    assert made.config["env"] == env
    assert list(made.snapshots) == [swap.snapshot]
    assert swaps.remove_old(swap)
    assert made.snapshots == {}


@pytest.mark.usefixtures("pvesh")
def test_new_variables(pve: Pve) -> None:
    """Several variables that change are no argument of pvesh, which is said before anything."""
    container(pve)
    here = settings(storage="cephfs")
    swaps = RootSwapper(Client(here), here)
    with pytest.raises(RequestError, match=r"change \(MINE, PATH\), and pvesh sets one at most"):
        plan(swaps)
    assert {request.method for request in pve.requests} == {"GET"}
    with pytest.raises(PublishError, match="has NUL in it"):
        Client(here).put("nodes/pve1/lxc/100/config", env="A=1\0B=2")
