"""A network storage mounted on this host and written by path; a disk of its own stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.errors import PublishError, TargetUnavailableError
from syncd.progress import Silence
from tests.clusters import CONTENT, NAME, arguments, names_on, target_on, token_for, uploads
from tests.e2e.machine import Disk
from tests.fakes.pve import Pve


@pytest.fixture
def pve(tmp_path: Path) -> Iterator[Pve]:
    """Serve a cluster whose CephFS is to be mounted."""
    root = tmp_path / "pve"
    (root / "shared").mkdir(parents=True)
    with Pve(root) as serving:
        yield serving


def test_mounted(pve: Pve, tmp_path: Path) -> None:
    """While it is mounted a template is copied there whole and listed; else nothing is written."""
    token_for(pve)
    target = target_on(pve, tmp_path, storage="cephfs", publish="path")
    with Disk(pve.cluster.root / "shared" / "cephfs"):
        (volume,) = target.publish(*arguments(tmp_path), Silence())
        assert volume.size == len(CONTENT)
        assert names_on(pve, "cephfs", "pve1") == [NAME]
        local = target.local(NAME)
        assert local is not None
        assert local.read_bytes() == CONTENT
    with pytest.raises(TargetUnavailableError, match="nothing is mounted"):
        target.publish(*arguments(tmp_path), Silence())
    assert uploads(pve) == []
    assert names_on(pve, "cephfs", "pve1") == []


def test_full(pve: Pve, tmp_path: Path) -> None:
    """A storage without a byte free takes nothing and keeps nothing of the attempt."""
    token_for(pve)
    target = target_on(pve, tmp_path, storage="cephfs", publish="path")
    with Disk(pve.cluster.root / "shared" / "cephfs") as disk:
        (disk.folder / "template" / "cache").mkdir(parents=True)
        with disk.filled(), pytest.raises(PublishError, match="No space left"):
            target.publish(*arguments(tmp_path), Silence())
        assert names_on(pve, "cephfs", "pve1") == []
