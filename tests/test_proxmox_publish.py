"""Templates published into a cluster: where, how, and what must never happen on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.errors import PublishError
from syncd.job import Advance, Silence, StoppedError
from syncd.template import Format, Volume
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import GIB, Storage, Token
from tests.fakes.pve_schema import VERSIONS, Description, validate
from tests.targets import (
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
    assert [one.node for one in target.publish(*arguments(tmp_path), Silence())] == ["pve1"]
    assert target.missing(NAME, len(CONTENT)) == []
    pve.cluster.nodes["pve2"].online = True
    assert target.missing(NAME, len(CONTENT)) == ["local on pve2"]
    assert len(target.publish(*arguments(tmp_path), Silence())) == 2
    assert len(uploads(pve)) == 2


def test_node_goes_away(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A node that goes offline after it was listed as online does not fail the others."""
    gone = pve.cluster.nodes["pve2"]
    when_asked(pve, "/nodes/pve2/storage", lambda: setattr(gone, "online", False))
    published = target_on(pve, tmp_path).publish(*arguments(tmp_path), Silence())
    assert [one.node for one in published] == ["pve1"]


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
