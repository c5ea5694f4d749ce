"""Two nodes that write one shared storage at a time, with the locks of pmxcfs as a file system.

`pmxcfs.py` is mounted with FUSE.  Each syncd runs in a mount namespace of its own, where the mount
lies at `/etc/pve/priv/lock`, so the program under test is the installed one with nothing replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.clusters import TOKEN, names_on, token_for
from tests.e2e.command import CommandError, run, stop, wait_for
from tests.e2e.conftest import Image
from tests.e2e.daemon import SYNCD
from tests.e2e.machine import Disk
from tests.e2e.test_proxmox import CONFIG
from tests.fakes.pve import Pve

EXPIRY = 6  # seconds; 120 in pmxcfs itself
MOUNT = """\
set -e
mount -t overlay -o lowerdir="$1":/etc overlay /etc
mount --bind "$2" /etc/pve/priv/lock
shift 2
exec "$@"
"""
# The copy to the storage happens while the lock is held.
DELAYED = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=copy_file_range:delay_enter=60s")


class Node:
    """A syncd with a state of its own, which sees the locks of the cluster."""

    def __init__(self, folder: Path, locks: Path, config: str) -> None:
        self._config = folder / "syncd.toml"
        self._locks = locks
        self._above = folder / "etc"
        (self._above / "pve" / "priv" / "lock").mkdir(parents=True)
        self._config.write_text(config)

    def sync(self, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start `syncd sync`, by the command `before` if there is one."""
        inside = ("unshare", "--mount", "sh", "-c", MOUNT, "sh", str(self._above), str(self._locks))
        return subprocess.Popen(
            [*inside, *before, str(SYNCD), "--config", str(self._config), "sync"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[Path]:
    """Mount the locks of a cluster."""
    folder = tmp_path / "locks"
    folder.mkdir()
    program = Path(__file__).with_name("pmxcfs.py")
    serving = subprocess.Popen(["/usr/bin/python3", program, folder, str(EXPIRY)])
    try:
        wait_for("the mount", lambda: os.path.ismount(folder), timeout=20)
        yield folder
    finally:
        run("umount", "--lazy", folder)
        stop(serving)


@pytest.fixture
def pve(tmp_path: Path) -> Iterator[Pve]:
    """Serve a cluster whose shared storage is mounted here."""
    root = tmp_path / "pve"
    (root / "shared").mkdir(parents=True)
    with Pve(root) as serving, Disk(root / "shared" / "cephfs", size="64m"):
        yield serving


@pytest.fixture
def nodes(pve: Pve, locks: Path, small: Image, tmp_path: Path) -> list[Node]:
    """Configure two syncds that watch one image and write one storage."""
    repository = small.reference.rpartition(":")[0]
    found = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "secret").write_text(token_for(pve).secret)
        (folder / "secret").chmod(0o600)
        config = CONFIG.format(
            folder=folder,
            registry=repository.partition("/")[0],
            repository=repository,
            port=pve.port,
            token=TOKEN,
            ca=pve.certificate.file,
        )
        config = config.replace('"local"', '"cephfs"\npublish = "path"')
        found.append(Node(folder, locks, config))
    return found


def ended(syncing: subprocess.Popen[str]) -> str:
    """Return what a `syncd sync` printed, once it has succeeded."""
    printed, _ = syncing.communicate(timeout=120)
    if syncing.returncode:
        raise CommandError(f"syncd sync ended with {syncing.returncode}\n{printed}")
    sys.stdout.write(printed)
    return printed


@pytest.mark.parametrize("race", range(3))
def test_both_at_once(pve: Pve, nodes: list[Node], locks: Path, race: int) -> None:
    """Two syncds that publish one image at a time succeed, and leave one whole file and no lock."""
    for syncing in [node.sync() for node in nodes]:
        ended(syncing)
    assert len(names_on(pve, "cephfs", "pve1")) == 1
    folder = pve.cluster.root / "shared" / "cephfs" / "template" / "cache"
    assert [file.suffix for file in folder.iterdir()] == [".tar"]
    assert list(locks.iterdir()) == []


def test_killed_holder(pve: Pve, nodes: list[Node], locks: Path) -> None:
    """The lock of a node that died is waited for until it expires, and no longer."""
    first, second = nodes
    dying = first.sync(DELAYED)
    wait_for("the lock", lambda: list(locks.iterdir()), timeout=60)
    os.killpg(dying.pid, signal.SIGKILL)
    dying.communicate()
    assert len(list(locks.iterdir())) == 1
    began = time.monotonic()
    ended(second.sync())
    assert time.monotonic() - began < EXPIRY + 30
    assert len(names_on(pve, "cephfs", "pve1")) == 1
    assert list(locks.iterdir()) == []
