"""Templates put straight into a storage's folder, where that is mounted here."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from syncd.errors import PublishError, TargetUnavailableError
from syncd.progress import Silence
from tests.clusters import (
    CONTENT,
    NAME,
    VOLID,
    arguments,
    finished,
    names_on,
    target_on,
    uploads,
)
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage, Token


@pytest.fixture
def on_pve1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pve1.example.org")


@pytest.mark.usefixtures("on_pve1")
def test_by_path(pve: Pve, token: Token, tmp_path: Path) -> None:
    """With `publish = "path"` this node's folder is written, the others' storages by upload."""
    pve.cluster.template(VOLID, "pve1").parent.mkdir(parents=True)
    target = target_on(pve, tmp_path, publish="path")
    published = target.publish(*arguments(tmp_path), Silence())
    assert [volume.node for volume in published] == ["pve1", "pve2"]
    assert [request.path.split("/")[2] for request in uploads(pve)] == ["pve2"]
    assert names_on(pve, "local", "pve1") == [NAME]
    local = target.local(NAME)
    assert local is not None
    assert local.read_bytes() == CONTENT
    assert target.local("absent.tar") is None


@pytest.mark.usefixtures("on_pve1")
def test_second_name_by_path(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A second tag of one image gets a file of its own, with the same bytes and no upload."""
    pve.cluster.storage(Storage("shared", "dir", shared=True))
    pve.cluster.template(f"shared:vztmpl/{NAME}", "pve1").parent.mkdir(parents=True)
    target = target_on(pve, tmp_path, storage="shared", publish="path")
    _, digest = finished(tmp_path)
    target.publish(*arguments(tmp_path), Silence())
    first = target.local(NAME)
    assert first is not None
    target.publish(first, f"second-{NAME}", digest, Silence())
    second = target.local(f"second-{NAME}")
    assert second is not None
    assert second.read_bytes() == first.read_bytes()
    assert not second.samefile(first)
    assert uploads(pve) == []


@pytest.mark.usefixtures("on_pve1")
def test_not_mounted(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A network storage that is not mounted here is not written below its empty mount point."""
    target = target_on(pve, tmp_path, storage="cephfs", publish="path")
    with pytest.raises(TargetUnavailableError, match="nothing is mounted at"):
        target.publish(*arguments(tmp_path), Silence())
    assert names_on(pve, "cephfs", "pve1") == []


@pytest.mark.usefixtures("on_pve1")
def test_wrong_folder(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A folder whose files the storage does not list was the wrong one, and is left as it was."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pve.cluster.storage(Storage("shared", "dir", shared=True, path=str(elsewhere)))
    target = target_on(pve, tmp_path, storage="shared", publish="path")
    with pytest.raises(PublishError, match="does not list it"):
        target.publish(*arguments(tmp_path), Silence())
    assert list((elsewhere / "template" / "cache").iterdir()) == []


@pytest.mark.usefixtures("on_pve1")
def test_no_such_folder(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A storage whose path is not on this host is not made up here."""
    absent = tmp_path / "absent"
    pve.cluster.storage(Storage("shared", "dir", shared=True, path=str(absent)))
    target = target_on(pve, tmp_path, storage="shared", publish="path")
    with pytest.raises(PublishError, match="is not on this host"):
        target.publish(*arguments(tmp_path), Silence())
    assert not absent.exists()


@pytest.mark.usefixtures("on_pve1")
@pytest.mark.parametrize("publish", ["path", "upload"])
def test_remove_part(pve: Pve, token: Token, tmp_path: Path, publish: str) -> None:
    """A dead copy goes where this host writes the storage, and nowhere else."""
    folder = pve.cluster.template(VOLID, "pve1").parent
    folder.mkdir(parents=True)
    part = folder / f".{NAME}.part"
    part.touch()
    target = target_on(pve, tmp_path, publish=publish)
    assert target.remove_part(NAME) is (publish == "path")
    assert part.exists() is (publish == "upload")
    assert not target.remove_part(NAME)


@pytest.mark.usefixtures("on_pve1")
def test_beside(pve: Pve, token: Token, tmp_path: Path) -> None:
    """A file lies beside a template where this host writes, is not listed, and goes with it."""
    folder = pve.cluster.template(VOLID, "pve1").parent
    folder.mkdir(parents=True)
    target = target_on(pve, tmp_path, publish="path")
    assert target.put_beside(NAME, b"{}\n")
    volumes = target.publish(*arguments(tmp_path), Silence())
    assert (folder / f"{NAME}.intoto.jsonl").read_bytes() == b"{}\n"
    assert {volume.name for volume in target.volumes()} == {NAME}
    assert [place.node for place in volumes] == ["pve1", "pve2"]
    target.delete(volumes[1])
    assert (folder / f"{NAME}.intoto.jsonl").exists()
    target.delete(volumes[0])
    assert list(folder.iterdir()) == []


def test_nothing_beside_an_upload(pve: Pve, token: Token, tmp_path: Path) -> None:
    """Proxmox VE takes no upload of a file beside a template, and it is said that there is none."""
    assert not target_on(pve, tmp_path).put_beside(NAME, b"{}\n")
    assert uploads(pve) == []
