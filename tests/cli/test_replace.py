"""`syncd replace` as a process, against a make-believe cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.sync.ledger import Ledger
from syncd.sync.replacement import UNFINISHED, Replacement, ReplacementState
from tests.clusters import LAUNCHING, token_for
from tests.daemons import running
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Container
from tests.fakes.registry import Registry
from tests.harness import REPOSITORY, cluster_table, configure, sample
from tests.targets.proxmox.test_root_swapper import V0, container, plan, swapper

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def syncd(pve: Pve, registry: Registry, tmp_path: Path) -> Run:
    """Run `syncd replace` where container 100 is on an older image of the tag `latest`."""
    table = cluster_table(tmp_path, pve, token_for(pve, LAUNCHING))
    config = configure(tmp_path, registry, image='targets = ["cluster"]', more=table)
    registry.push(REPOSITORY, "latest", sample("newer"))
    name = f"{registry.address}/{REPOSITORY}:latest"
    container(pve, description=f"syncd: {name}@{sample().digest}")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        words = tuple(name if word == "REF" else word for word in words)
        return subprocess.run(
            [sys.executable, "-m", "syncd", "--config", config, "replace", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def options(pve: Pve, vmid: int = 100) -> dict[str, Any]:
    return pve.cluster.containers[vmid].config


def test_replaced(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """What is printed is where the container is, its image, and what keeps the old root."""
    done = syncd("100", "--keep", "1d")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100 pve1 ")
    assert f"the old root {V0} is kept as unused255" in done.stdout.replace("\n", " ")
    assert "replacing 100: unpack the template into the new root" in done.stderr
    assert "SSH host keys" in done.stderr
    assert options(pve)["unused255"] == V0
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        (kept,) = ledger.replacements.of(ReplacementState.REPLACED)
    assert kept.keep == 86400


def test_already(pve: Pve, syncd: Run) -> None:
    """A container that has the image is left as it is, and that is no failure."""
    assert syncd("100").returncode == 0
    before = dict(options(pve))
    done = syncd("100")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace("\n", " ").strip().endswith("already")
    assert options(pve) == before
    done = syncd("--behind", "REF", "--one-at-a-time")
    assert (done.returncode, done.stdout) == (0, "no container is behind\n")


def test_dry_run(pve: Pve, syncd: Run) -> None:
    """The steps are numbered, each with its meaning; nothing is changed."""
    before = dict(options(pve))
    done = syncd("100", "REF", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1. stop: shut the container down" in done.stdout
    assert "swap: put the new root in the place of the old one" in done.stdout
    assert "SSH host keys" in done.stderr
    assert options(pve) == before


def test_snapshot(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """The snapshot is a step, and its name is printed with the way back."""
    token_for(pve, LAUNCHING | {"/vms": [*LAUNCHING["/vms"], "VM.Snapshot"]})
    done = syncd("100", "--snapshot", "--dry-run")
    assert "2. snapshot: take a snapshot of its root and its data volumes" in done.stdout
    assert "pct rollback 100 NAME brings back" in done.stderr.replace("\n", " ")
    done = syncd("100", "--snapshot")
    assert done.returncode == 0, done.stderr
    (name,) = pve.cluster.containers[100].snapshots
    assert f"is kept as unused255, and in the snapshot {name}" in done.stdout.replace("\n", " ")
    assert f"pct rollback 100 {name} brings back" in done.stderr.replace("\n", " ")


def test_json(syncd: Run) -> None:
    """For machines one object is printed for one container."""
    done = syncd("100", "--json")
    answer = json.loads(done.stdout)
    assert (answer["vmid"], answer["done"], answer["old_root"]) == (100, True, V0)


def test_behind(pve: Pve, syncd: Run) -> None:
    """The first container that has to go back ends the row; those before it keep the new root."""
    config = dict(options(pve))
    for vmid in (101, 102):
        pve.cluster.containers[vmid] = Container(vmid, "pve1", dict(config), running=True)
    options(pve, 101)["lock"] = "backup"
    done = syncd("--behind", "REF", "--one-at-a-time", "--json")
    assert done.returncode == 2
    assert "container 101 is locked" in done.stderr
    row = json.loads(done.stdout)
    assert [each["vmid"] for each in row["replaced"]] == [100]
    assert (row["failed"], row["left"]) == (101, [102])
    assert options(pve)["unused255"] == V0
    assert options(pve, 102) == config


def test_side_by_side(pve: Pve, syncd: Run) -> None:
    """A new container has the options of the old one, which stays; what is left out is told."""
    options(pve).update(cores=3, memory=256, features="nesting=1,keyctl=1", tags="a;b", onboot=1)
    options(pve)["unused0"] = "local-zfs:subvol-100-disk-7"
    before = dict(options(pve))
    done = syncd("100", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("101 pve1 local:vztmpl/")
    assert "not taken over: mp0, onboot, keyctl=1" in done.stderr.replace("\n", " ")
    made = options(pve, 101)
    kept = {key: made[key] for key in ("hostname", "cores", "memory", "features", "tags", "net0")}
    assert kept == {
        "hostname": "web",
        "cores": 3,
        "memory": 256,
        "features": "nesting=1",
        "tags": "a;b",
        "net0": "name=eth0,bridge=vmbr0,ip=dhcp",
    }
    assert made["rootfs"].startswith("local-zfs:subvol-101-disk-0,size=8G")
    assert pve.cluster.containers[101].running
    assert options(pve) == before


def test_side_by_side_address(pve: Pve, syncd: Run) -> None:
    """Two containers cannot have one address, so a static address is refused."""
    options(pve)["net0"] = "name=eth0,bridge=vmbr0,ip=10.0.0.5/24"
    done = syncd("100", "--side-by-side")
    assert done.returncode == 2
    assert "has the address 10.0.0.5/24" in done.stderr.replace("\n", " ")
    assert set(pve.cluster.containers) == {100}


def test_resume(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """What was broken off is undone, and how it ended is told."""
    left = Replacement("cluster", replace(plan(swapper(pve, tmp_path)), image="a.b/c:latest"))
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        ledger.replacements.put(left)
    done = syncd("--resume")
    assert (done.returncode, done.stdout) == (
        0,
        "100 pve1 undone: a.b/c:latest (it was broken off)\n",
    ), done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing is to be replaced"),
        (("100", "--resume"), "nothing is to be replaced"),
        (("--behind", "REF"), "--behind and --one-at-a-time go together"),
        (("100", "--one-at-a-time"), "--behind and --one-at-a-time go together"),
        (("100", "--keep", "long"), "--keep 'long' is no time"),
        (("100", "--wait-for", "luck"), "'luck' is nothing to wait for"),
        (("100", "--carry", "/etc/ssh"), "pct mount"),
        (("--resume", "--snapshot"), "--resume ends what was begun"),
        (("100", "--snapshot"), "VM.Snapshot on /vms/100 is missing"),
        (("100", "--side-by-side", "--snapshot"), "leaves that one as it is"),
        (("--resume", "--dry-run"), "--resume ends what was begun"),
        (("--behind", "REF", "--one-at-a-time", "--side-by-side"), "is for one container"),
        (("100", "--side-by-side", "--keep", "1d"), "leaves that one as it is"),
    ],
)
def test_refused(pve: Pve, syncd: Run, words: tuple[str, ...], message: str) -> None:
    """What cannot be done as typed is refused before anything is changed."""
    before = dict(options(pve))
    done = syncd(*words)
    assert done.returncode in (1, 2)
    assert message in done.stderr.replace("\n", " ")
    assert options(pve) == before


def test_start_of_daemon(pve: Pve, registry: Registry, syncd: Run, tmp_path: Path) -> None:
    """The next start of the daemon undoes what was broken off, without anybody's word."""
    assert syncd("100", "--dry-run").returncode == 0
    name = f"{registry.address}/{REPOSITORY}:latest"
    left = Replacement("cluster", replace(plan(swapper(pve, tmp_path)), image=name))
    pve.cluster.containers[100].running = False
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        ledger.replacements.put(left)
    with running(tmp_path, tmp_path / "syncd.toml") as daemon:
        daemon.until_logged("went back")
    with Ledger(tmp_path / "state" / "ledger.sqlite") as ledger:
        assert ledger.replacements.of(*UNFINISHED) == []
    assert pve.cluster.containers[100].running


def test_by_daemon(pve: Pve, syncd: Run, tmp_path: Path) -> None:
    """A running daemon does it, and the same is printed; what only a command can do, it does."""
    with running(tmp_path, tmp_path / "syncd.toml") as daemon:
        beside = syncd("100", "--side-by-side")
        assert (beside.returncode, beside.stdout[:9]) == (0, "101 pve1 "), beside.stderr
        done = syncd("100", "--timeout", "9", "--wait-for", "running")
        assert done.returncode == 0, done.stderr
        assert f"the old root {V0} is kept as unused255" in done.stdout.replace("\n", " ")
        assert "SSH host keys" in done.stderr
        assert daemon.until_logged("replaced")["vmid"] == 100
        assert syncd("101", "--wait-for", "command:true").stdout.endswith(" already\n")
        assert syncd("101", "--carry", "/srv").stdout.endswith(" already\n")
        refused = syncd("100", "--side-by-side", "--keep", "1d")
        assert (refused.returncode, "leaves that one as it is" in refused.stderr) == (2, True)
    assert options(pve)["unused255"] == V0
