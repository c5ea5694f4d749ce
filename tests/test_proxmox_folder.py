"""Templates put straight into a storage's folder, where that is mounted here."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from syncd.errors import PublishError, TargetUnavailableError
from syncd.job import Silence
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage, Token
from tests.targets import (
    CONTENT,
    NAME,
    VOLID,
    arguments,
    finished,
    names_on,
    target_on,
    uploads,
)


@pytest.fixture
def on_pve1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pve1.example.org")


@pytest.mark.usefixtures("on_pve1")
def test_by_path(pve: Pve, token: Token, tmp_path: Path) -> None:
    """With `publish = "path"` this node's folder is written, the others' storages by upload."""
    pve.cluster.template(VOLID, "pve1").parent.mkdir(parents=True)
    target = target_on(pve, tmp_path, publish="path")
    published = target.publish(*arguments(tmp_path), Silence())
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
    target.publish(*arguments(tmp_path), Silence())
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
