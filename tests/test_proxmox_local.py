"""Root on a Proxmox VE host: asking through pvesh, writing into the storages' folders.

`pvesh` is a small program here that passes each call on to the test double and prints what the
real one prints; proxmoxer's `local` backend runs it.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from syncd.container import ContainerRequest, Startup
from syncd.errors import PublishError
from syncd.job import Silence
from syncd.proxmox import ProxmoxTarget
from syncd.proxmox.client import Client
from syncd.settings import ProxmoxTargetSettings
from syncd.template import Format, Volume
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage
from tests.targets import CONTENT, NAME, arguments, names_on, uploads

PVESH = """\
#!{python}
import json, ssl, sys, urllib.error, urllib.parse, urllib.request
verb, path, *options = sys.argv[1:]
names = [name.lstrip("-") for name in options[::2]]
fields = {{n: v for n, v in zip(names, options[1::2]) if n != "output-format"}}
method = {{"get": "GET", "create": "POST", "delete": "DELETE"}}[verb]
url = "https://127.0.0.1:{port}/api2/json" + urllib.parse.quote(path, safe="/:!@")
data = urllib.parse.urlencode(fields)
request = urllib.request.Request(
    url + ("?" + data if method != "POST" and data else ""),
    data=data.encode() if method == "POST" else None, method=method,
    headers={{"Authorization": "PVEAPIToken={token}"}},
)
try:
    with urllib.request.urlopen(
        request, context=ssl.create_default_context(cafile={ca!r})
    ) as answer:
        data = json.load(answer)["data"]
        if isinstance(data, str):
            print("a line of the task's log")
        print("" if data is None else json.dumps(data))
except urllib.error.HTTPError as error:
    print(f"{{error.code}} {{error.reason}}", file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture
def pvesh(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be root on a host that has a `pvesh`, which passes its calls on to the cluster."""
    token = pve.cluster.token("root@pam!pvesh", {"/": ALL})
    script = tmp_path / "bin" / "pvesh"
    script.parent.mkdir()
    script.write_text(
        PVESH.format(
            python=sys.executable,
            port=pve.port,
            token=f"{token.id}={token.secret}",
            ca=str(pve.certificate.file),
        )
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(socket, "gethostname", lambda: "pve1")


ALL = [
    "Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate",
    "Datastore.Audit", "SDN.Use", "Sys.Audit", "VM.Allocate", "VM.Audit", "VM.Config.CPU",
    "VM.Config.Disk", "VM.Config.Memory", "VM.Config.Network", "VM.Config.Options", "VM.PowerMgmt",
]  # fmt: skip


def settings(**changes: Any) -> ProxmoxTargetSettings:
    return ProxmoxTargetSettings(name="here", type="proxmox", **changes)


@pytest.mark.usefixtures("pvesh")
def test_asked() -> None:
    """Without endpoints root on a host asks through pvesh, and gets the same answers."""
    client = Client(settings())
    assert client.is_local
    assert client.version() == (9, 2)
    shown = client.get("nodes/pve1/storage", content="vztmpl", enabled=1)
    assert {entry["storage"] for entry in shown} == {"local", "cephfs"}
    with pytest.raises(PublishError, match="hostname lookup 'absent' failed"):
        client.get("nodes/absent/storage")


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
    target = ProxmoxTarget(settings(storage="shared"), tmp_path / "state")
    (volume,) = target.publish(*arguments(tmp_path), Silence())
    assert volume == Volume(f"shared:vztmpl/{NAME}", len(CONTENT))
    assert target.local(NAME) is not None
    assert uploads(pve) == []
    target.delete(volume)
    assert names_on(pve, "shared", "pve1") == []
    assert all(finding.ok for finding in target.check())


@pytest.mark.usefixtures("pvesh")
def test_other_nodes(pve: Pve, tmp_path: Path) -> None:
    """A storage of this node's own is written; what is another node's is out of reach."""
    pve.cluster.template(f"local:vztmpl/{NAME}", "pve1").parent.mkdir(parents=True)
    target = ProxmoxTarget(settings(storage="local"), tmp_path / "state")
    assert [one.node for one in target.publish(*arguments(tmp_path), Silence())] == ["pve1"]
    assert target.missing(NAME, len(CONTENT)) == []
    assert "local on pve2 is out of pvesh's reach" in str(target.check())
    pve.cluster.storages["local"].nodes = ("pve2",)
    with pytest.raises(PublishError, match=r"pvesh takes no uploads.*configure endpoints"):
        target.publish(*arguments(tmp_path), Silence())


@pytest.mark.usefixtures("pvesh")
@pytest.mark.parametrize(("env", "sent"), [("A=1", "A=1"), ("A=1\0B=2", None)])
def test_container(pve: Pve, tmp_path: Path, env: str, sent: str | None) -> None:
    """A container is made as well; several variables cannot be passed, and that is said."""
    file = pve.cluster.template("cephfs:vztmpl/image.tar.zst", "pve1")
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    target = ProxmoxTarget(settings(storage="cephfs"), tmp_path / "state")
    made = target.create(
        ContainerRequest(hostname="web"),
        [Volume("cephfs:vztmpl/image.tar.zst", len(CONTENT))],
        Format.ROOTFS,
        Startup(env=env),
        Silence(),
    )
    assert ("env is left out" in str(made.warnings)) is (sent is None)
    (request,) = [r for r in pve.requests if r.method == "POST"]
    assert request.params.get("env") == sent
