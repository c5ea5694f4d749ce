"""Templates published into a cluster: where, how, and what must never happen on the way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncd.errors import PublishError, TargetUnavailableError
from syncd.job import Advance, Silence, StoppedError
from syncd.reference import Digest
from syncd.template import Format, Volume
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import GIB, Storage, Token
from tests.targets import (
    CONTENT,
    LARGE,
    NAME,
    finished,
    target_on,
    token_for,
    uploads,
    when_asked,
)

VOLID = f"local:vztmpl/{NAME}"
SHARED = f"cephfs:vztmpl/{NAME}"


@pytest.fixture
def token(pve: Pve) -> Token:
    return token_for(pve)


def names_on(pve: Pve, storage: str, node: str) -> list[str]:
    folder = pve.cluster.template_folder(pve.cluster.storages[storage], node)
    return sorted(file.name for file in folder.glob("*"))


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
    published = target.publish(*_args(tmp_path), Silence())
    assert published == [Volume(SHARED, len(CONTENT))]
    assert len(uploads(pve)) == 1
    assert target.volumes() == published


def _args(folder: Path, content: bytes = CONTENT, name: str = NAME) -> tuple[Path, str, Digest]:
    file, digest = finished(folder, content)
    return file, name, digest


def test_streamed(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A large file arrives whole, and the progress hears of each of its bytes."""
    heard: list[int] = []

    class Heard:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            assert (step, total) == ("publish", len(LARGE))
            return heard.append

    target = target_on(pve, tmp_path, storage="cephfs")
    target.publish(*_args(tmp_path, LARGE), Heard())
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
        target.publish(*_args(tmp_path, LARGE), Stopping())
    assert target.volumes() == []


def test_largest_storage(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Without a name the largest enabled storage for templates is taken."""
    pve.cluster.storage(Storage("huge", "dir", ("iso",), total=900 * GIB))
    pve.cluster.storage(Storage("off", "dir", disable=True, total=800 * GIB))
    pve.cluster.storage(Storage("large", "nfs", ("iso", "vztmpl"), total=700 * GIB))
    target = target_on(pve, tmp_path, storage=None)
    (volume,) = target.publish(*_args(tmp_path), Silence())
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
    assert [one.node for one in target.publish(*_args(tmp_path), Silence())] == ["pve1"]
    assert target.missing(NAME, len(CONTENT)) == []
    pve.cluster.nodes["pve2"].online = True
    assert target.missing(NAME, len(CONTENT)) == ["local on pve2"]
    assert len(target.publish(*_args(tmp_path), Silence())) == 2
    assert len(uploads(pve)) == 2


def test_node_goes_away(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A node that goes offline after it was listed as online does not fail the others."""
    gone = pve.cluster.nodes["pve2"]
    when_asked(pve, "/nodes/pve2/storage", lambda: setattr(gone, "online", False))
    published = target_on(pve, tmp_path).publish(*_args(tmp_path), Silence())
    assert [one.node for one in published] == ["pve1"]


def _small_spool(pve: Pve, token: Token) -> None:
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    pve.cluster.nodes["pve1"].spool_avail = 5000


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
        target.publish(*_args(tmp_path), Silence())
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
        target_on(pve, tmp_path).publish(*_args(tmp_path, name=name), Silence())
    assert pve.requests == []


def test_spool_elsewhere(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Room for one is enough on a storage that is known to be another disk than the spool's."""
    token.acl["/nodes"] = frozenset({"Sys.Audit"})
    for storage in pve.cluster.storages.values():
        storage.total = 7 * GIB
        storage.avail = 15_000
    assert len(target_on(pve, tmp_path).publish(*_args(tmp_path), Silence())) == 2


@pytest.mark.parametrize("present", [b"other", CONTENT])
def test_never_overwrites(pve: Pve, token: Token, tmp_path: Path, present: bytes) -> None:
    """A name that is taken stays as it is: equal in size it is the template, else an error."""
    taken = pve.cluster.template(SHARED, "pve1")
    taken.parent.mkdir(parents=True)
    taken.write_bytes(present)
    target = target_on(pve, tmp_path, storage="cephfs")
    if present == CONTENT:
        assert len(target.publish(*_args(tmp_path), Silence())) == 1
    else:
        assert target.missing(NAME, len(CONTENT)) == ["cephfs"]
        with pytest.raises(PublishError, match=r"another size.*pvesm free"):
            target.publish(*_args(tmp_path), Silence())
    assert taken.read_bytes() == present
    assert uploads(pve) == []


def test_growing(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A growing file is listed but not present; a second writer waits for it and sends nothing."""
    pve.cluster.tasks_may_finish.clear()
    target, other = (target_on(pve, tmp_path, storage="cephfs") for _ in range(2))
    other._state = tmp_path / "other-host"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(target.publish, *_args(tmp_path), Silence())
        while not target.volumes():
            time.sleep(0.01)
        assert target.missing(NAME, len(CONTENT)) == ["cephfs"]
        second = pool.submit(other.publish, *_args(tmp_path), Silence())
        time.sleep(0.5)
        assert not first.done()
        assert not second.done()
        pve.cluster.tasks_may_finish.set()
        assert first.result() == second.result()
    assert len(uploads(pve)) == 1


def test_foreign_writer(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A file that somebody else makes grow is a passing trouble, and is left alone."""
    taken = pve.cluster.template(SHARED, "pve1")
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"begun")
    done = threading.Event()

    def grow() -> None:
        with taken.open("ab", buffering=0) as file:
            while not done.wait(0.05):
                file.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(TargetUnavailableError, match="is being written by somebody else"):
            target_on(pve, tmp_path, storage="cephfs").publish(*_args(tmp_path), Silence())
    finally:
        done.set()
        writer.join()
    assert uploads(pve) == []


def test_many_writers(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Many publish one name at a time from one host; it is sent once, and all find it."""
    targets = [target_on(pve, tmp_path, storage="cephfs") for _ in range(4)]
    arguments = _args(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda one: one.publish(*arguments, Silence()), targets))
    assert results == [[Volume(SHARED, len(CONTENT))]] * 4
    assert len(uploads(pve)) == 1
    assert pve.cluster.overwritten == pve.cluster.collisions == []


def test_wrong_checksum(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A file that is not what its digest says is not published, and the reason is told."""
    file, _ = finished(tmp_path)
    target = target_on(pve, tmp_path, storage="cephfs")
    with pytest.raises(PublishError, match=r"checksum mismatch.*its log ends: .*TASK ERROR"):
        target.publish(file, NAME, Digest.of(b"other"), Silence())
    assert target.volumes() == []


def test_task_fails(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Only an exit status of OK is a success; the task's last words are in the error."""
    when_asked(pve, "/upload", lambda: setattr(pve.cluster.storages["cephfs"], "avail", 10))
    with pytest.raises(PublishError, match="No space left on device"):
        target_on(pve, tmp_path, storage="cephfs").publish(*_args(tmp_path, LARGE), Silence())


def test_dropped_before(pve: Pve, token: Token, tmp_path: Path) -> None:
    """An upload that broke off without a task is a passing trouble, and not sent again blindly."""
    when_asked(pve, "/upload", lambda: setattr(pve.cluster, "hang_ups", 1))
    with pytest.raises(TargetUnavailableError, match="broke off and left no task") as failure:
        target_on(pve, tmp_path, storage="cephfs").publish(*_args(tmp_path, LARGE), Silence())
    assert failure.value.temporary
    assert len(uploads(pve)) == 1


def test_dropped_after(pve: Pve, token: Token, tmp_path: Path) -> None:
    """An upload whose answer got lost is found by its task and counts."""
    when_asked(pve, "/upload", lambda: setattr(pve.cluster, "lost_answers", 1))
    target = target_on(pve, tmp_path, storage="cephfs")
    assert len(target.publish(*_args(tmp_path, LARGE), Silence())) == 1
    assert len(uploads(pve)) == 1


def revoke(pve: Pve) -> None:
    pve.cluster.tokens["syncd@pve!sync"].acl["/storage"] = frozenset({"Datastore.Audit"})


def renew(pve: Pve) -> None:
    pve.cluster.tokens["syncd@pve!sync"].secret = "another"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(revoke, r"may not upload.*Datastore\.AllocateTemplate"), (renew, "token .*is not accepted")],
)
def test_dropped_for_a_reason(
    pve: Pve, token: Token, tmp_path: Path, spoil: Callable[[Pve], None], message: str
) -> None:
    """A connection dropped over a large body is diagnosed: a refusal is no passing trouble."""
    when_asked(pve, "/upload", lambda: spoil(pve))
    with pytest.raises(PublishError, match=message) as failure:
        target_on(pve, tmp_path, storage="cephfs").publish(*_args(tmp_path, LARGE), Silence())
    assert not failure.value.temporary
    assert len(uploads(pve)) == 1


def test_delete(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A deleted volume is gone when the call returns, and again is no error."""
    target = target_on(pve, tmp_path)
    first, second = target.publish(*_args(tmp_path), Silence())
    target.delete(second)
    assert target.volumes() == [first]
    target.delete(second)
    assert names_on(pve, "local", "pve2") == []


def test_delete_refused(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Without Datastore.Allocate nothing is deleted, and one message says how to grant it."""
    target = target_on(pve, tmp_path)
    first, _ = target.publish(*_args(tmp_path), Silence())
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


@pytest.fixture
def on_pve1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pve1.example.org")


@pytest.mark.usefixtures("on_pve1")
def test_by_path(pve: Pve, token: Token, tmp_path: Path) -> None:
    """With `publish = "path"` this node's folder is written, the others' storages by upload."""
    pve.cluster.template(VOLID, "pve1").parent.mkdir(parents=True)
    target = target_on(pve, tmp_path, publish="path")
    published = target.publish(*_args(tmp_path), Silence())
    assert [one.node for one in published] == ["pve1", "pve2"]
    assert [request.path.split("/")[2] for request in uploads(pve)] == ["pve2"]
    assert names_on(pve, "local", "pve1") == [NAME]
    local = target.local(NAME)
    assert local is not None
    assert local.read_bytes() == CONTENT
    assert target.local("absent.tar") is None


@pytest.mark.usefixtures("on_pve1")
def test_second_name_by_path(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A second tag of one image shares the first one's file."""
    pve.cluster.storage(Storage("shared", "dir", shared=True))
    pve.cluster.template(f"shared:vztmpl/{NAME}", "pve1").parent.mkdir(parents=True)
    target = target_on(pve, tmp_path, storage="shared", publish="path")
    _, digest = finished(tmp_path)
    target.publish(*_args(tmp_path), Silence())
    first = target.local(NAME)
    assert first is not None
    target.publish(first, f"second-{NAME}", digest, Silence())
    second = target.local(f"second-{NAME}")
    assert second is not None
    assert second.samefile(first)
    assert uploads(pve) == []


@pytest.mark.usefixtures("on_pve1")
def test_not_mounted(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A network storage that is not mounted here is not written below its empty mount point."""
    target = target_on(pve, tmp_path, storage="cephfs", publish="path")
    with pytest.raises(TargetUnavailableError, match="nothing is mounted at"):
        target.publish(*_args(tmp_path), Silence())
    assert names_on(pve, "cephfs", "pve1") == []


@pytest.mark.usefixtures("on_pve1")
def test_wrong_folder(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A folder whose files the storage does not list was the wrong one, and is left as it was."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pve.cluster.storage(Storage("shared", "dir", shared=True, path=str(elsewhere)))
    target = target_on(pve, tmp_path, storage="shared", publish="path")
    with pytest.raises(PublishError, match="does not list it"):
        target.publish(*_args(tmp_path), Silence())
    assert list((elsewhere / "template" / "cache").iterdir()) == []


@pytest.mark.usefixtures("on_pve1")
def test_no_such_folder(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A storage whose path is not on this host is not made up here."""
    absent = tmp_path / "absent"
    pve.cluster.storage(Storage("shared", "dir", shared=True, path=str(absent)))
    target = target_on(pve, tmp_path, storage="shared", publish="path")
    with pytest.raises(PublishError, match="is not on this host"):
        target.publish(*_args(tmp_path), Silence())
    assert not absent.exists()
