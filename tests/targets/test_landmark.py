"""What `landmark` promises: a disk that is not mounted is a failure, and is never written below."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from syncd.errors import TargetUnavailableError
from syncd.oci.reference import Digest
from syncd.progress import Silence
from syncd.targets.directory import DirectoryTarget
from syncd.targets.target import Volume

NAME = "ghcr.io_o_n_latest_0123456789ab.tar.zst"


def target(folder: Path, path: str = "disk", mountpoint: Path | None = None) -> DirectoryTarget:
    """Return a target of a process that is started now."""
    marker = folder / "state" / "targets" / "local"
    return DirectoryTarget("local", folder / path, marker=marker, mountpoint=mountpoint)


def publish(to: DirectoryTarget, folder: Path) -> None:
    file = folder / "made"
    file.write_bytes(b"template")
    to.publish(file, NAME, Digest.of(b"template"), Silence())


def test_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    """A folder that has been there and vanished is a passing failure of every question and act."""
    publish(target(tmp_path), tmp_path)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    (tmp_path / "disk").mkdir()
    for local in (target(tmp_path), target(tmp_path)):
        for act in (
            local.volumes,
            local.space,
            lambda: local.missing(NAME, None),  # noqa: B023 - called at once
            lambda: publish(local, tmp_path),  # noqa: B023
            lambda: local.delete(Volume(f"local:vztmpl/{NAME}", 8)),  # noqa: B023
        ):
            with pytest.raises(TargetUnavailableError, match="not there any more; mount its disk"):
                act()
        (result,) = local.check()
        assert not result.ok
        assert "not there any more" in result.detail
    assert list((tmp_path / "disk").iterdir()) == []
    (tmp_path / "disk").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "disk")
    assert target(tmp_path).missing(NAME, 8) == []


def test_seen_is_enough(tmp_path: Path) -> None:
    """A folder that was there when it was looked at is remembered, published to or not."""
    cache = tmp_path / "disk" / "template" / "cache"
    cache.mkdir(parents=True)
    assert target(tmp_path).volumes() == []
    cache.rmdir()
    with pytest.raises(TargetUnavailableError):
        target(tmp_path).volumes()
    cache.mkdir()
    assert target(tmp_path).volumes() == []


def test_a_new_folder(tmp_path: Path) -> None:
    """A folder that never was there is empty and is made; so is that of a changed path."""
    local = target(tmp_path)
    assert (local.volumes(), local.missing(NAME, None)) == ([], ["local"])
    publish(local, tmp_path)
    publish(target(tmp_path, "other"), tmp_path)
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(TargetUnavailableError):
        target(tmp_path, "other").volumes()


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that cannot be remembered is used all the same."""
    (tmp_path / "state").write_text("a file")
    publish(target(tmp_path), tmp_path)
    assert target(tmp_path).missing(NAME, 8) == []


def test_mountpoint(tmp_path: Path) -> None:
    """With `is_mountpoint` a folder that is no mount point is a failure, whatever it holds."""
    (tmp_path / "disk" / "template" / "cache").mkdir(parents=True)
    with pytest.raises(TargetUnavailableError, match=f"{tmp_path}/disk is not mounted; mount it"):
        publish(target(tmp_path, mountpoint=tmp_path / "disk"), tmp_path)
    assert list((tmp_path / "disk" / "template" / "cache").iterdir()) == []
    publish(target(tmp_path, mountpoint=Path("/proc")), tmp_path)
