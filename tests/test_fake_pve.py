"""What the test double of Proxmox VE does, seen through the real proxmoxer."""

import hashlib
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from proxmoxer import ResourceException

from tests.fakes.pve import DROP_ABOVE, Pve
from tests.fakes.pve_cluster import GIB, Storage, Token

SMALL = b"template " * 100
LARGE = b"x" * (DROP_ABOVE + 4096)
VOLID = "local:vztmpl/image.tar.zst"


@pytest.fixture
def token(pve: Pve) -> Token:
    return pve.cluster.token(
        "syncd@pve!sync", {"/storage": ["Datastore.Audit", "Datastore.Allocate"]}
    )


@pytest.fixture
def api(pve: Pve, token: Token) -> Any:
    return pve.client(token)


def put(pve: Pve, volid: str, node: str = "pve1") -> Path:
    """Place a template on a storage, past the API."""
    file = pve.cluster.template(volid, node)
    file.parent.mkdir(parents=True)
    file.write_bytes(SMALL)
    return file


def names(api: Any, storage: str = "local", node: str = "pve1") -> list[str]:
    return [entry["volid"] for entry in api.nodes(node).storage(storage).content.get()]


def test_refusals_are_slow(pve: Pve, api: Any) -> None:
    """A refusal comes after a delay, with its reason in the status line."""
    pve.cluster.error_delay = 0.2
    begun = time.monotonic()
    with pytest.raises(ResourceException) as refusal:
        api.nodes("pve1").status.get()
    assert time.monotonic() - begun > 0.2
    assert refusal.value.content == "Permission check failed (/nodes/pve1, Sys.Audit)"


def test_permissions(pve: Pve) -> None:
    """An ACL entry reaches down its tree, unless it does not propagate or another replaces it."""
    token = pve.cluster.token(
        "syncd@pve!acl",
        {"/": ["Sys.Audit"], "/storage": ["Datastore.Audit"], "/storage/local": ["Datastore.X"]},
        "/",
    )
    api = pve.client(token)
    assert api.access.permissions.get() == {
        "/": {"Sys.Audit": 0},
        "/storage": {"Datastore.Audit": 1},
        "/storage/local": {"Datastore.X": 1},
    }
    assert api.access.permissions.get(path="/storage/cephfs") == {
        "/storage/cephfs": {"Datastore.Audit": 1}
    }
    assert api.access.permissions.get(path="/vms/100") == {}


def test_hidden_storages(pve: Pve) -> None:
    """Storages that the token may not see are left out without a word."""
    api = pve.client(pve.cluster.token("syncd@pve!few", {"/storage/cephfs": ["Datastore.Audit"]}))
    assert [entry["storage"] for entry in api.storage.get()] == ["cephfs"]
    assert [entry["storage"] for entry in api.nodes("pve1").storage.get()] == ["cephfs"]
    with pytest.raises(ResourceException, match="403"):
        names(api)


def test_storage_figures(pve: Pve, api: Any) -> None:
    """A node lists its own storages, by content, with the space that is left."""
    pve.cluster.storage(Storage("elsewhere", nodes=("pve2",), total=GIB))
    pve.cluster.storage(Storage("off", disable=True))
    put(pve, VOLID)
    listed = api.nodes("pve1").storage.get(content="vztmpl", enabled=1)
    assert [entry["storage"] for entry in listed] == ["local", "cephfs"]
    assert listed[0]["total"] - listed[0]["avail"] == listed[0]["used"] == len(SMALL)
    assert api.nodes("pve2").storage("elsewhere").status.get()["avail"] == GIB
    with pytest.raises(ResourceException, match="400"):
        api.nodes("pve1").storage("elsewhere").status.get()
    (off,) = [entry for entry in api.storage.get() if entry["storage"] == "off"]
    assert off["disable"] == 1


def test_shared_storage(pve: Pve, api: Any) -> None:
    """What lies on a shared storage is listed by every node, a local file only by its own."""
    put(pve, VOLID)
    put(pve, "cephfs:vztmpl/image.tar.zst")
    assert names(api, "cephfs", "pve2") == ["cephfs:vztmpl/image.tar.zst"]
    assert names(api, "local", "pve2") == []


def test_rename_is_enough(pve: Pve, api: Any, tmp_path: Path) -> None:
    """A file that appears in the folder by rename is listed at once."""
    target = pve.cluster.template(VOLID, "pve1")
    target.parent.mkdir(parents=True)
    (tmp_path / "new").write_bytes(SMALL)
    (tmp_path / "new").rename(target)
    assert names(api) == [VOLID]


def test_delete(pve: Pve, api: Any, token: Token) -> None:
    """Deleting needs Datastore.Allocate, answers a UPID, and is OK with an absent volume."""
    put(pve, VOLID)
    volume = api.nodes("pve1").storage("local").content(VOLID)
    held = token.acl["/storage"]
    token.acl["/storage"] = held - {"Datastore.Allocate"}
    with pytest.raises(ResourceException, match=r"Datastore\.Allocate"):
        volume.delete()
    token.acl["/storage"] = held
    assert pve.cluster.result(volume.delete()) == "OK"
    assert names(api) == []
    assert pve.cluster.result(volume.delete()) == "OK"
    assert volume.delete(delay=5) is None


def test_foreign_task(pve: Pve, api: Any) -> None:
    """A task is shown on its own node, to its own token or to an auditor of the node."""
    upid = api.nodes("pve1").storage("local").content(VOLID).delete()
    with pytest.raises(ResourceException, match="no such task"):
        api.nodes("pve2").tasks(upid).status.get()
    other = pve.cluster.token("other@pve!x", {})
    with pytest.raises(ResourceException, match="403"):
        pve.client(other).nodes("pve1").tasks(upid).status.get()
    other.acl["/nodes"] = frozenset({"Sys.Audit"})
    assert pve.client(other).nodes("pve1").tasks(upid).status.get()["upid"] == upid


def test_own_tasks(pve: Pve, api: Any, token: Token) -> None:
    """A token sees its own tasks on their node; the cluster's list takes Sys.Audit on `/`."""
    pve.cluster.tasks_may_finish.clear()
    upid = api.nodes("pve1").storage("local").content(VOLID).delete()
    (active,) = api.nodes("pve1").tasks.get(source="all", typefilter="imgdel")
    assert (active["upid"], active["status"], "endtime" in active) == (upid, "RUNNING", False)
    assert (active["user"], active["tokenid"]) == ("syncd@pve", "sync")
    assert api.nodes("pve1").tasks.get() == []
    pve.cluster.join_tasks()
    (ended,) = api.nodes("pve1").tasks.get(source="all")
    assert (ended["status"], "endtime" in ended) == ("OK", True)
    assert api.nodes("pve1").tasks.get(typefilter="imgcopy") == []
    assert api.nodes("pve2").tasks.get(source="all") == []
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    assert api.cluster.tasks.get() == []
    token.acl["/"] = frozenset({"Sys.Audit"})
    assert [task["upid"] for task in api.cluster.tasks.get()] == [upid]


def test_offline_node(pve: Pve, api: Any) -> None:
    """An offline node is listed as such, and what is proxied to it ends in a 595."""
    pve.cluster.nodes["pve2"].online = False
    assert [node["status"] for node in api.nodes.get()] == ["online", "offline"]
    with pytest.raises(ResourceException, match="595"):
        names(api, "local", "pve2")


def test_hang_ups(pve: Pve, api: Any) -> None:
    """A connection may be dropped before the work is done, or after it."""
    volume = api.nodes("pve1").storage("local").content(VOLID)
    pve.cluster.hang_ups = 1
    with pytest.raises(requests.ConnectionError):
        volume.delete()
    assert pve.cluster.tasks == {}
    pve.cluster.lost_answers = 1
    with pytest.raises(requests.ConnectionError):
        volume.delete()
    assert pve.cluster.result(next(iter(pve.cluster.tasks))) == "OK"


def test_certificate(pve: Pve) -> None:
    """The certificate is known by its fingerprint, and to nobody by its issuer."""
    with socket.create_connection(("127.0.0.1", pve.port)) as plain:
        context = ssl.create_default_context(cafile=pve.certificate.file)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            der = connection.getpeercert(binary_form=True)
    assert der is not None
    assert hashlib.sha256(der).hexdigest() == pve.certificate.fingerprint.replace(":", "").lower()
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{pve.port}/", timeout=5)
