"""Files carried between two root file systems as root: owners, capabilities, other volumes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.errors import StorageError
from syncd.files import carry
from tests.e2e.machine import Disk

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep, in revision 2 (linux/capability.h, `struct vfs_cap_data`)."""


def quiet(_: int) -> None:
    """Hear no progress."""


def test_as_root(tmp_path: Path) -> None:
    """Owners of an unprivileged container and file capabilities come along, and setuid stays."""
    old, new = tmp_path / "old", tmp_path / "new"
    tool = old / "opt" / "tool"
    tool.parent.mkdir(parents=True)
    new.mkdir()
    tool.write_bytes(b"program")
    os.chown(tool.parent, 101000, 101000)
    os.chown(tool, 101000, 100007)
    tool.chmod(0o4755)
    os.setxattr(tool, "security.capability", CAPABILITY)
    (tool.parent / "link").symlink_to("tool")
    os.chown(tool.parent / "link", 101000, 101000, follow_symlinks=False)
    assert carry("/opt/*", old, new, quiet) == 2
    carried = new / "opt" / "tool"
    assert (carried.stat().st_uid, carried.stat().st_gid) == (101000, 100007)
    assert carried.stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(carried, "security.capability") == os.getxattr(tool, "security.capability")
    assert (new / "opt").stat().st_uid == 101000
    assert (new / "opt" / "link").lstat().st_uid == 101000


def test_data_volume(tmp_path: Path) -> None:
    """A data volume that is mounted in the old root is not carried, nor a folder that has one."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "srv").mkdir(parents=True)
    new.mkdir()
    with Disk(old / "srv" / "data") as disk:
        (disk.folder / "file").write_text("data")
        for path in ("/srv/data/file", "/srv/data", "/srv"):
            with pytest.raises(StorageError, match="another volume"):
                carry(path, old, new, quiet)
    assert not list(new.rglob("file"))
