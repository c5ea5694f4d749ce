"""What `files.carried` promises: files move between two roots that nobody trusts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.errors import StorageError
from syncd.files import carry, check_carried

KEYS = "/etc/ssh/ssh_host_*"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a root with two host keys and a folder with a symlink in it."""
    ssh = tmp_path / "old" / "etc" / "ssh"
    ssh.mkdir(parents=True)
    (ssh / "ssh_host_key").write_text("secret")
    (ssh / "ssh_host_key").chmod(0o600)
    (ssh / "ssh_host_key.pub").write_text("public")
    (ssh / "sshd_config").write_text("old")
    srv = tmp_path / "old" / "srv" / "app"
    srv.mkdir(parents=True)
    srv.chmod(0o750)
    (srv / "state").write_bytes(b"x" * (3 << 20))
    (srv / "current").symlink_to("/etc/shadow")
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Return a root with other keys, and without the folder."""
    ssh = tmp_path / "new" / "etc" / "ssh"
    ssh.mkdir(parents=True)
    (ssh / "ssh_host_key").write_text("another")
    (ssh / "sshd_config").write_text("new")
    return tmp_path / "new"


def quiet(_: int) -> None:
    """Hear no progress."""


def test_pattern(old: Path, new: Path) -> None:
    """What matches takes the place of what was there, with its mode and time; the rest stays."""
    os.utime(old / "etc/ssh/ssh_host_key", ns=(1, 2_000_000_003))
    assert carry(KEYS, old, new, quiet) == 2
    key = new / "etc/ssh/ssh_host_key"
    assert key.read_text() == "secret"
    assert (key.stat().st_mode & 0o777, key.stat().st_mtime_ns) == (0o600, 2_000_000_003)
    assert (new / "etc/ssh/sshd_config").read_text() == "new"
    assert sorted(file.name for file in (new / "etc/ssh").iterdir()) == [
        "ssh_host_key",
        "ssh_host_key.pub",
        "sshd_config",
    ]
    assert carry("/etc/ssh/none_*", old, new, quiet) == 0


def test_folder(old: Path, new: Path) -> None:
    """A folder comes whole, with its mode; a symlink stays what it is, wherever it leads."""
    heard: list[int] = []
    assert carry("/srv/app", old, new, heard.append) == 2
    assert (new / "srv/app/state").stat().st_size == sum(heard) == 3 << 20
    assert (new / "srv/app").stat().st_mode & 0o777 == 0o750
    assert (new / "srv/app/current").readlink() == Path("/etc/shadow")
    (new / "srv/app/more").write_text("stays")
    carry("/srv/app", old, new, quiet)
    assert (new / "srv/app/more").read_text() == "stays"


def test_attributes(old: Path, new: Path) -> None:
    """Extended attributes come along."""
    os.setxattr(old / "srv/app/state", "user.kind", b"state")
    carry("/srv/app", old, new, quiet)
    assert os.getxattr(new / "srv/app/state", "user.kind") == b"state"


def lead_away(root: Path, name: str = "etc") -> None:
    """Put a symlink to the host in the place of a folder."""
    (root / name).rename(root / "moved")
    (root / name).symlink_to(root.parent / "host")


def test_symlinks(old: Path, new: Path, tmp_path: Path) -> None:
    """A symlink in the way, in either root, leads nowhere: neither read nor written through."""
    host = tmp_path / "host" / "ssh"
    host.mkdir(parents=True)
    (host / "ssh_host_key").write_text("the host's")
    lead_away(new)
    with pytest.raises(StorageError, match="a symlink or a file is in the way"):
        carry(KEYS, old, new, quiet)
    assert (host / "ssh_host_key").read_text() == "the host's"
    (new / "etc").unlink()
    lead_away(old)
    with pytest.raises(StorageError, match="a symlink or a file is in the way"):
        carry(KEYS, old, new, quiet)
    assert not (new / "etc").exists()


def test_symlink_for_a_file(old: Path, new: Path, tmp_path: Path) -> None:
    """A symlink under the name of a file is replaced, and what it leads to is left alone."""
    host = tmp_path / "host"
    host.write_text("the host's")
    (new / "etc/ssh/ssh_host_key").unlink()
    (new / "etc/ssh/ssh_host_key").symlink_to(host)
    carry(KEYS, old, new, quiet)
    assert host.read_text() == "the host's"
    assert (new / "etc/ssh/ssh_host_key").read_text() == "secret"


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(path.parent, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


@pytest.mark.parametrize(
    ("path", "spoil", "message"),
    [
        ("/etc/absent", lambda _: None, r"it is not in the old root"),
        ("/absent/a", lambda _: None, r"\(absent\): No such file or directory"),
        ("/srv/app", lambda old: os.mkfifo(old / "srv/app/pipe"), "neither file, folder nor"),
        ("/srv/app", lambda old: bind(old / "srv/app/socket"), "neither file, folder nor"),
    ],
)
def test_refused(
    old: Path, new: Path, path: str, spoil: Callable[[Path], None], message: str
) -> None:
    """What cannot be carried is an error that names it, and nothing half-written is left."""
    spoil(old)
    with pytest.raises(StorageError, match=message):
        carry(path, old, new, quiet)
    assert not list(new.rglob(".syncd-*"))


def test_another_volume(new: Path) -> None:
    """What lies on another file system than the root is not the root's, and is not carried."""
    with pytest.raises(StorageError, match="lies in another volume, which stays anyway"):
        carry("/proc/version", Path("/"), new, quiet)
    assert not (new / "proc").exists()


def test_stopped(old: Path, new: Path) -> None:
    """Who reports the bytes may end it, and nothing half-written is left."""

    def stop(_: int) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        carry("/srv/app", old, new, stop)
    assert not (new / "srv/app/state").exists()
    assert not list(new.rglob(".syncd-*"))


@pytest.mark.parametrize("path", ["", "/", "etc/ssh", "/etc/../root", "/a\0b"])
def test_paths(path: str) -> None:
    """Only an absolute path below the root names something to carry."""
    with pytest.raises(ValueError, match="no absolute path"):
        check_carried(path)
