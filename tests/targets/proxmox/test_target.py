"""Templates published into a cluster: where, how, and what must never happen on the way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncd.errors import PublishError, StoppedError
from syncd.formats import Format
from syncd.progress import Advance, Silence
from syncd.targets.proxmox import memory, storages
from syncd.targets.target import Space, Volume
from tests.clusters import (
    CONTENT,
    LARGE,
    NAME,
    SHARED,
    VOLID,
    arguments,
    finished,
    names_on,
    target_on,
    uploads,
    when_asked,
)
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import GIB, Storage, Token
from tests.fakes.pve_schema import VERSIONS, Description, validate


@pytest.mark.parametrize("pve", ["9.2.11", "8.4.5"], indirect=True)
def test_every_node(pve: Pve, token: Token, tmp_path: Path) -> None:
    """On a storage that is not shared every online node gets the template, with the right parts."""
    target = target_on(pve, tmp_path)
    file, digest = finished(tmp_path)
    size = len(CONTENT)
    assert target.missing(NAME, size) == ["local on pve1", "local on pve2"]
    published = target.publish(file, NAME, digest, Silence())
    assert published == [Volume(VOLID, size, "pve1"), Volume(VOLID, size, "pve2")]
    assert target.missing(NAME, size) == []
    assert target.volumes() == published
    for request in uploads(pve):
        assert request.parts == ("content", "checksum-algorithm", "checksum", "filename")
        assert request.params["checksum"] == digest.encoded
    assert [pve.cluster.template(VOLID, n).read_bytes() for n in ("pve1", "pve2")] == [CONTENT] * 2


def test_shared_once(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A shared storage gets the template once, whatever the number of nodes."""
    target = target_on(pve, tmp_path, storage="cephfs")
    published = target.publish(*arguments(tmp_path), Silence())
    assert published == [Volume(SHARED, len(CONTENT))]
    assert len(uploads(pve)) == 1
    assert target.volumes() == published


def test_space(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Each place of the storage is told with its space; a shared one is one place."""
    total = pve.cluster.storages["local"].total
    free = pve.cluster.avail(pve.cluster.storages["local"], "pve1")
    assert target_on(pve, tmp_path).space() == [
        Space("local on pve1", free, total),
        Space("local on pve2", free, total),
    ]
    shared = target_on(pve, tmp_path, storage="cephfs").space()
    assert [space.place for space in shared] == ["cephfs"]


def test_streamed(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A large file arrives whole, and the progress hears of each of its bytes."""
    heard: list[int] = []

    class Heard:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            assert (step, total) == ("publish", len(LARGE))
            return heard.append

    target = target_on(pve, tmp_path, storage="cephfs")
    target.publish(*arguments(tmp_path, LARGE), Heard())
    assert pve.cluster.template(SHARED, "pve1").read_bytes() == LARGE
    assert sum(heard) == len(LARGE)


def test_stopped(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A job that is to stop ends in the middle of its upload, and nothing is listed."""

    class Stopping:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            def advance(amount: int) -> None:
                if amount:
                    raise StoppedError("stopping")

            return advance

    target = target_on(pve, tmp_path, storage="cephfs")
    with pytest.raises(StoppedError):
        target.publish(*arguments(tmp_path, LARGE), Stopping())
    assert target.volumes() == []


def test_largest_storage(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Without a name the largest enabled storage for templates is taken."""
    pve.cluster.storage(Storage("huge", "dir", ("iso",), total=900 * GIB))
    pve.cluster.storage(Storage("off", "dir", disable=True, total=800 * GIB))
    pve.cluster.storage(Storage("large", "nfs", ("iso", "vztmpl"), total=700 * GIB))
    target = target_on(pve, tmp_path, storage=None)
    (volume,) = target.publish(*arguments(tmp_path), Silence())
    assert volume.volid == f"large:vztmpl/{NAME}"


def test_nodes_of_storage(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Only nodes that have the storage are places."""
    pve.cluster.storage(Storage("some", "dir", nodes=("pve2",)))
    target = target_on(pve, tmp_path, storage="some")
    assert target.missing(NAME, None) == ["some on pve2"]


def test_offline_node(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A node that is offline is left out, and made up once it is back."""
    pve.cluster.nodes["pve2"].online = False
    target = target_on(pve, tmp_path)
    assert [volume.node for volume in target.publish(*arguments(tmp_path), Silence())] == ["pve1"]
    assert target.missing(NAME, len(CONTENT)) == []
    target._client.forget("*")
    pve.cluster.nodes["pve2"].online = True
    assert target.missing(NAME, len(CONTENT)) == ["local on pve2"]
    assert len(target.publish(*arguments(tmp_path), Silence())) == 2
    assert len(uploads(pve)) == 2


def test_node_goes_away(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A node that goes offline after it was listed as online does not fail the others."""
    gone = pve.cluster.nodes["pve2"]
    when_asked(pve, "/nodes/pve2/storage", lambda: setattr(gone, "online", False))
    published = target_on(pve, tmp_path).publish(*arguments(tmp_path), Silence())
    assert [volume.node for volume in published] == ["pve1"]


def test_every_refusal(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Each place that refuses is named, and what to do about it is told once."""
    pve.cluster.storages["local"].avail = 5000
    with pytest.raises(PublishError) as refusal:
        target_on(pve, tmp_path).publish(*arguments(tmp_path), Silence())
    assert "local on pve1 has" in refusal.value.what
    assert "local on pve2 has" in refusal.value.what
    assert refusal.value.hint == "remove what is not needed any more, or set keep lower"


def _small_spool(pve: Pve, token: Token) -> None:
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    pve.cluster.nodes["pve1"].spool_avail = 5000


def test_unknown_node(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A node of which nobody gathers statistics is a place all the same."""
    pve.cluster.nodes["pve2"].status = "unknown"
    assert target_on(pve, tmp_path).missing(NAME, None) == ["local on pve1", "local on pve2"]


@pytest.mark.parametrize("version", VERSIONS)
def test_valid_everywhere(pve: Pve, token: Token, tmp_path: Path, version: str) -> None:
    """What publishing asks for is described for old and new versions alike."""
    target = target_on(pve, tmp_path)
    for volume in target.publish(*arguments(tmp_path), Silence()):
        target.delete(volume)
    target.check()
    assert len(pve.requests) > 20
    assert validate(pve.requests, Description.load(version)) == []


FAULTS: list[tuple[str, Callable[[Pve, Token], object], dict[str, str], str]] = [
    (
        "no privilege to upload",
        lambda pve, token: token.acl.update({"/storage": frozenset({"Datastore.Audit"})}),
        {},
        r"may not upload.*Datastore\.AllocateTemplate.*pveum acl modify /storage/local",
    ),
    (
        "hidden storage",
        lambda pve, token: token.acl.update({"/storage": frozenset()}),
        {},
        r"does not exist, or is hidden.*pveum acl modify /storage/local",
    ),
    ("absent storage", lambda pve, token: None, {"storage": "absent"}, "does not exist, or is"),
    (
        "disabled storage",
        lambda pve, token: setattr(pve.cluster.storages["local"], "disable", True),
        {},
        "is disabled",
    ),
    (
        "other content",
        lambda pve, token: None,
        {"storage": "local-zfs"},
        r"not for content vztmpl.*pvesm set local-zfs --content images,rootdir,vztmpl",
    ),
    (
        "no space",
        lambda pve, token: setattr(pve.cluster.storages["local"], "avail", 5000),
        {},
        "needs",
    ),
    (
        "no space for two",
        lambda pve, token: setattr(pve.cluster.storages["local"], "avail", 15_000),
        {},
        "spooled on the same disk",
    ),
    (
        "no spool",
        _small_spool,
        {"storage": "cephfs"},
        "under /var/tmp",
    ),
]


@pytest.mark.parametrize(
    "fault", [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_refused_before(
    pve: Pve,
    token: Token,
    tmp_path: Path,
    fault: tuple[Callable[[Pve, Token], object], dict[str, str], str],
) -> None:
    """What would be refused after the body has arrived is refused before one is sent."""
    spoil, settings, message = fault
    spoil(pve, token)
    target = target_on(pve, tmp_path, **settings)
    with pytest.raises(PublishError, match=message) as refusal:
        target.publish(*arguments(tmp_path), Silence())
    assert not refusal.value.temporary
    assert uploads(pve) == []
    assert pve.cluster.spool_leaks == []


@pytest.mark.parametrize(
    "name",
    ["a+b.tar", "a/b.tar", ".hidden.tar", "image.zip", "image.tar.zst ", "n" * 250 + ".tar.zst"],
)
def test_names(pve: Pve, token: Token, tmp_path: Path, name: str) -> None:
    """A name that would not be listed as it is never gets near the API."""
    with pytest.raises(PublishError, match="not a name that Proxmox VE keeps"):
        target_on(pve, tmp_path).publish(*arguments(tmp_path, name=name), Silence())
    assert pve.requests == []


def test_long_volume_id(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A name whose volume id is too long to make a container from is refused before an upload."""
    name = "n" * (255 - len("local:vztmpl/") - len(".tar")) + ".tar"
    target = target_on(pve, tmp_path)
    assert len(target.publish(*arguments(tmp_path, name=name), Silence())) == 2
    with pytest.raises(PublishError, match=r"256 characters.*shorter name pattern"):
        target.publish(*arguments(tmp_path, name=f"n{name}"), Silence())
    assert len(uploads(pve)) == 2


def test_own_endpoint(pve: Pve, token: Token, tmp_path: Path) -> None:
    """An upload for a node goes to the node's own endpoint, once a first upload has told which."""
    endpoints = tuple(f"https://127.0.0.1:{port}" for port in (pve.endpoint("pve2"), pve.port))
    target = target_on(pve, tmp_path, endpoints=endpoints)
    target.publish(*arguments(tmp_path), Silence())
    before = len(uploads(pve))
    target.publish(*arguments(tmp_path, name="another.tar.zst"), Silence())
    sent = {request.path.split("/")[2]: request.node for request in uploads(pve)[before:]}
    assert sent == {"pve1": "pve1", "pve2": "pve2"}


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(("storage", "calls"), [("local", 5), ("cephfs", 3)])
def test_common_questions(
    pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, calls: int
) -> None:
    """A look at many tags asks what is common to them once, and again after some seconds.

    The version is asked for once more, before the first look.
    """
    monkeypatch.setattr(memory, "SECONDS", 60.0)
    target = target_on(pve, tmp_path, storage=storage)

    def look(_: int) -> None:
        target.format()
        target.missing(NAME, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(20)))
    assert len(pve.requests) == 1 + calls
    monkeypatch.setattr(memory, "SECONDS", 0.0)
    look(0)
    assert len(pve.requests) == 1 + 2 * calls


def test_hung_node(pve: Pve, token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose storage is dead is asked once in a while, and the other nodes are served."""
    monkeypatch.setattr(memory, "SECONDS", 0.0)
    monkeypatch.setattr(storages, "_SLOW", 0.1)
    pve.cluster.nodes["pve1"].hangs = 0.2
    for name, missing in (("local", ["local on pve2"]), ("cephfs", ["cephfs"])):
        target = target_on(pve, tmp_path, storage=name)
        for _ in range(3):
            assert target.missing(NAME, None) == missing
        assert len(target.publish(*arguments(tmp_path), Silence())) == 1
    asked = [request for request in pve.requests if "/pve1/storage" in request.path]
    assert len(asked) == 2
    monkeypatch.setattr(storages, "_SLOW_FOR", 0.0)
    pve.cluster.nodes["pve1"].hangs = None
    assert target_on(pve, tmp_path).missing("other.tar", None) == ["local on pve1", "local on pve2"]


def test_calls_of_publishing(pve: Pve, token: Token, tmp_path: Path) -> None:
    """An upload to a shared storage between two looks takes 10 calls, besides the task's polls.

    The version is asked for once more, before the first look.
    """
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    target = target_on(pve, tmp_path, storage="cephfs")
    target.format()
    target.missing(NAME, None)
    target.publish(*arguments(tmp_path), Silence())
    assert target.missing(NAME, None) == []
    calls = [request for request in pve.requests if "/tasks/UPID" not in request.path]
    assert len(calls) <= 1 + 10, calls


def test_own_change_seen(pve: Pve, token: Token, tmp_path: Path) -> None:
    """What a target changed itself is seen at once."""
    target = target_on(pve, tmp_path, storage="cephfs")
    assert target.missing(NAME, None) == ["cephfs"]
    (volume,) = target.publish(*arguments(tmp_path), Silence())
    assert target.missing(NAME, None) == []
    target.delete(volume)
    assert target.missing(NAME, None) == ["cephfs"]


def test_spool_elsewhere(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Room for one is enough on a storage that is known to be another disk than the spool's."""
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    for storage in pve.cluster.storages.values():
        storage.total = 7 * GIB
        storage.avail = 15_000
    assert len(target_on(pve, tmp_path).publish(*arguments(tmp_path), Silence())) == 2


def test_delete(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A deleted volume is gone when the call returns, and again is no error."""
    target = target_on(pve, tmp_path)
    first, second = target.publish(*arguments(tmp_path), Silence())
    target.delete(second)
    assert target.volumes() == [first]
    target.delete(second)
    assert names_on(pve, "local", "pve2") == []


def test_delete_refused(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Without Datastore.Allocate nothing is deleted, and one message says how to grant it."""
    target = target_on(pve, tmp_path)
    first, _ = target.publish(*arguments(tmp_path), Silence())
    token.acl["/storage"] -= {"Datastore.Allocate"}
    with pytest.raises(
        PublishError, match=r"Datastore\.Allocate.*pveum acl modify /storage/local --roles"
    ):
        target.delete(first)
    assert len(target.volumes()) == 2


@pytest.mark.parametrize(
    ("pve", "form"),
    [("9.2.11", Format.OCI), ("9.1.0", Format.OCI), ("9.0.5", Format.ROOTFS),
     ("8.4.5", Format.ROOTFS)],
    indirect=["pve"],
)  # fmt: skip
def test_format(pve: Pve, token: Token, tmp_path: Path, form: Format) -> None:
    """What `auto` means depends on the version: OCI archives came with 9.1."""
    assert target_on(pve, tmp_path).format() is form
