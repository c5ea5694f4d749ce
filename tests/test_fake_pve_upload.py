"""What the test double of Proxmox VE does with uploads, seen through the real proxmoxer."""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from proxmoxer import ResourceException

from tests.fakes.pve import DROP_ABOVE, Pve
from tests.fakes.pve_cluster import Storage, Token

SMALL = b"template " * 100
LARGE = b"x" * (DROP_ABOVE + 4096)
VOLID = "local:vztmpl/image.tar.zst"
DUTIES = {"/storage": ["Datastore.Audit", "Datastore.AllocateTemplate"]}


@pytest.fixture
def token(pve: Pve) -> Token:
    return pve.cluster.token("syncd@pve!sync", DUTIES)


@pytest.fixture
def api(pve: Pve, token: Token) -> Any:
    return pve.client(token)


def upload(
    api: Any, folder: Path, data: bytes = SMALL, /, name: str = "image.tar.zst", **fields: str
) -> str:
    """Upload through proxmoxer, `fields` in their order; with none, as PVE wants them."""
    storage, node = fields.pop("storage", "local"), fields.pop("node", "pve1")
    file = folder / name
    file.write_bytes(data)
    fields = fields or {
        "content": "vztmpl",
        "checksum-algorithm": "sha256",
        "checksum": hashlib.sha256(data).hexdigest(),
    }
    with file.open("rb") as opened:
        return str(api.nodes(node).storage(storage).upload.post(**fields, filename=opened))


def names(api: Any, storage: str = "local", node: str = "pve1") -> list[str]:
    return [entry["volid"] for entry in api.nodes(node).storage(storage).content.get()]


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
def test_upload(pve: Pve, api: Any, tmp_path: Path) -> None:
    """An upload in the right order is a task, whose success and size the listing confirms."""
    upid = upload(api, tmp_path)
    assert pve.cluster.result(upid) == "OK"
    status = api.nodes("pve1").tasks(upid).status.get()
    assert (status["status"], status["exitstatus"], status["type"]) == ("stopped", "OK", "imgcopy")
    assert api.nodes("pve1").tasks(upid).log.get()[-1]["t"] == "TASK OK"
    (entry,) = api.nodes("pve1").storage("local").content.get(content="vztmpl")
    assert {**entry, "ctime": 0} == {
        "volid": VOLID,
        "content": "vztmpl",
        "format": "tzst",
        "size": len(SMALL),
        "ctime": 0,
    }
    assert pve.cluster.template(VOLID, "pve1").read_bytes() == SMALL
    assert pve.requests[0].parts == ("content", "checksum-algorithm", "checksum", "filename")
    assert pve.cluster.spool_leaks == []
    assert list((pve.cluster.root / "pve1/var/tmp").iterdir()) == []


def test_streamed_upload(pve: Pve, api: Any, tmp_path: Path) -> None:
    """A body that proxmoxer streams arrives whole."""
    data = bytes(range(256)) * (11 << 12)
    assert pve.cluster.result(upload(api, tmp_path, data)) == "OK"
    assert pve.cluster.template(VOLID, "pve1").read_bytes() == data


@pytest.mark.parametrize(
    "order",
    [
        ("checksum-algorithm", "checksum", "content"),
        ("content", "checksum", "checksum-algorithm"),
        ("content", "notes"),
    ],
)
def test_part_order(pve: Pve, api: Any, tmp_path: Path, order: tuple[str, ...]) -> None:
    """Parts in another order, or one too many, are a bare 400, or a drop when the body is big."""
    fields = dict.fromkeys(order, "sha256") | {"content": "vztmpl"}
    with pytest.raises(ResourceException) as refusal:
        upload(api, tmp_path, SMALL, **{name: fields[name] for name in order})
    assert (refusal.value.status_code, refusal.value.errors) == (400, None)
    with pytest.raises(requests.ConnectionError):
        upload(api, tmp_path, LARGE, **{name: fields[name] for name in order})
    assert pve.requests[-1].status is None


def test_checksum_without_algorithm(tmp_path: Path) -> None:
    """A checksum without its algorithm is a 400 that says so in `errors`."""
    with Pve(tmp_path) as pve:
        api = pve.client(pve.cluster.token("syncd@pve!sync", DUTIES))
        with pytest.raises(ResourceException) as refusal:
            upload(api, tmp_path, content="vztmpl", checksum="00")
    assert refusal.value.status_code == 400
    assert "checksum-algorithm" in refusal.value.errors


def test_checksum_mismatch(pve: Pve, api: Any, tmp_path: Path) -> None:
    """A wrong checksum fails the task, not the call, and leaves the destination untouched."""
    pve.cluster.result(upload(api, tmp_path))
    wrong = {"content": "vztmpl", "checksum-algorithm": "sha256", "checksum": "0" * 64}
    exitstatus = pve.cluster.result(upload(api, tmp_path, b"other", **wrong))
    assert exitstatus is not None
    assert exitstatus.startswith("checksum mismatch: got '")
    assert pve.cluster.template(VOLID, "pve1").read_bytes() == SMALL
    assert pve.cluster.spool_leaks == []


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ({"name": "image.zip"}, 400),
        ({"content": "iso"}, 500),
        ({"storage": "absent"}, 500),
        ({"storage": "off"}, 500),
        ({"storage": "elsewhere"}, 500),
        ({"storage": "backups"}, 500),
        ({"storage": "local-zfs"}, 500),
        ({"node": "absent"}, 500),
        ({"node": "pve2"}, 500),
    ],
)
def test_late_rejection(
    pve: Pve, api: Any, tmp_path: Path, case: dict[str, str], status: int
) -> None:
    """What is found wrong only after the body arrived leaves the spooled file behind."""
    pve.cluster.storage(Storage("off", disable=True))
    pve.cluster.storage(Storage("elsewhere", nodes=("pve2",)))
    pve.cluster.storage(Storage("backups", content=("backup",)))
    pve.cluster.nodes["pve2"].online = False
    with pytest.raises(ResourceException) as refusal:
        upload(api, tmp_path, **({"content": "vztmpl"} | case))
    assert refusal.value.status_code == status
    assert len(pve.cluster.spool_leaks) == 1
    assert len(list((pve.cluster.root / "pve1/var/tmp").iterdir())) == 1


def test_file_names(pve: Pve, api: Any, tmp_path: Path) -> None:
    """Names are normalised, so that different ones collide, and dot files are never listed."""
    for name in ("a+b.tar", "a~b.tar", ".hidden.tar"):
        assert pve.cluster.result(upload(api, tmp_path, name=name)) == "OK"
    assert names(api) == ["local:vztmpl/a_b.tar"]
    assert pve.cluster.overwritten == ["local:vztmpl/a_b.tar"]


def test_growing_file(pve: Pve, api: Any, tmp_path: Path) -> None:
    """While its task runs, a file is listed already, smaller than it will be."""
    pve.cluster.tasks_may_finish.clear()
    upid = upload(api, tmp_path)
    while not names(api):
        time.sleep(0.005)
    (entry,) = api.nodes("pve1").storage("local").content.get()
    assert entry["size"] < len(SMALL)
    status = api.nodes("pve1").tasks(upid).status.get()
    assert status["status"] == "running"
    assert "exitstatus" not in status
    pve.cluster.tasks_may_finish.set()
    assert pve.cluster.result(upid) == "OK"


def test_two_writers(pve: Pve, api: Any, tmp_path: Path) -> None:
    """Two uploads of one name overwrite each other, with both tasks OK and nobody warned."""
    pve.cluster.tasks_may_finish.clear()
    first = upload(api, tmp_path, b"a" * 1000)
    while not names(api):
        time.sleep(0.005)
    second = upload(api, tmp_path, b"b" * 1000)
    while not pve.cluster.collisions:
        time.sleep(0.005)
    pve.cluster.tasks_may_finish.set()
    assert (pve.cluster.result(first), pve.cluster.result(second)) == ("OK", "OK")
    assert pve.cluster.collisions == pve.cluster.overwritten == [VOLID]


def test_full_storage(pve: Pve, api: Any, tmp_path: Path) -> None:
    """With the storage full, an overwrite deletes the good file that was there."""
    pve.cluster.result(upload(api, tmp_path))
    pve.cluster.storages["local"].avail = 10
    exitstatus = pve.cluster.result(upload(api, tmp_path))
    assert exitstatus is not None
    assert "No space left" in exitstatus
    assert names(api) == []


def test_full_spool(pve: Pve, api: Any, tmp_path: Path) -> None:
    """A node whose /var/tmp is too small for the body takes none."""
    pve.cluster.nodes["pve1"].spool_avail = 1000
    with pytest.raises(ResourceException, match="No space left"):
        upload(api, tmp_path, b"x" * 2000)
    with pytest.raises(requests.ConnectionError):
        upload(api, tmp_path, LARGE)


@pytest.mark.parametrize("fault", ["secret", "privilege"])
def test_refused_upload(pve: Pve, token: Token, tmp_path: Path, fault: str) -> None:
    """A bad token or no privilege is told only to small bodies; large ones lose the connection."""
    if fault == "privilege":
        token.acl["/storage"] = frozenset({"Datastore.Audit"})
    api = pve.client(token, secret="wrong" if fault == "secret" else None)
    with pytest.raises(ResourceException) as refusal:
        upload(api, tmp_path)
    assert refusal.value.status_code == {"secret": 401, "privilege": 403}[fault]
    with pytest.raises(requests.ConnectionError):
        upload(api, tmp_path, LARGE)
    assert len(pve.cluster.spool_leaks) == (1 if fault == "privilege" else 0)


def test_endpoint_spools(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Whoever takes an upload spools it and owns its task, whatever node the path names."""
    api = pve.client(token, port=pve.endpoint("pve2"))
    upid = upload(api, tmp_path, content="vztmpl", node="pve1")
    assert upid.startswith("UPID:pve2:")
    assert pve.cluster.result(upid) == "OK"
    assert names(api, node="pve1") == [VOLID]
    assert (pve.cluster.root / "pve2/var/tmp").is_dir()
