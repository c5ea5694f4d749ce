"""What `offers` promises: what root on a node is offered for a first configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.config.target_settings import ProxmoxTargetSettings
from syncd.errors import PublishError
from syncd.targets.proxmox import on_a_node, survey
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage
from tests.fakes.pvesh import install_pvesh

HERE = ProxmoxTargetSettings(name="cluster", type="proxmox")


@pytest.fixture
def node(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pve:
    """Be root on a node of the cluster."""
    folder = tmp_path / "bin"
    folder.mkdir()
    install_pvesh(pve, folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return pve


def test_survey(node: Pve) -> None:
    """The endpoints begin with this node's; shared storages come first, then by free space."""
    node.cluster.storage(Storage("nfs", "nfs", ("vztmpl", "rootdir"), total=10 << 30))
    node.cluster.storage(Storage("off", "dir", ("vztmpl",), disable=True))
    assert on_a_node()
    found = survey(HERE)
    assert found.endpoints == ("https://127.0.0.1:8006", "https://127.0.0.2:8006")
    assert [offer.name for offer in found.templates] == ["cephfs", "nfs", "local"]
    assert [offer.name for offer in found.roots] == ["nfs", "local-zfs"]
    assert [offer.shared for offer in found.templates] == [True, True, False]


def test_offline_node(node: Pve) -> None:
    """A node that is offline is no endpoint, and its storages do not count."""
    node.cluster.nodes["pve2"].online = False
    assert survey(HERE).endpoints == ("https://127.0.0.1:8006",)


def test_nothing_to_offer(node: Pve) -> None:
    """A cluster without a storage for templates offers none."""
    for storage in node.cluster.storages.values():
        storage.disable = True
    found = survey(HERE)
    assert (found.templates, found.roots) == ((), ())


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host offers nothing."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not on_a_node()
    with pytest.raises(PublishError):
        survey(HERE)
