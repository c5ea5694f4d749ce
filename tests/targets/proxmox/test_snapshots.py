"""A snapshot before a new root under a container, on a make-believe cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.errors import PublishError, RequestError
from syncd.targets.proxmox import privileges, tasks
from syncd.targets.root_swap import SwapStep
from tests.clusters import CREATING, when_asked
from tests.fakes.pve import Pve
from tests.fakes.pve_cluster import Storage
from tests.fakes.pve_schema import assert_contract
from tests.fakes.pve_snapshot import roll_back
from tests.targets.proxmox.test_root_swapper import (
    DATA,
    NEW,
    OLD,
    ORDER,
    SNAPPED,
    SNAPPING,
    V0,
    container,
    plan,
    quiet,
    run,
    state,
    swapper,
)


def test_taken(pve: Pve, tmp_path: Path) -> None:
    """The snapshot has root and data volumes as they were, and the container goes on all the same.

    It is taken while the container is down, and before the new root is a mount point.
    """
    made = container(pve, protection=1)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED))
    assert swap.steps[:3] == (SwapStep.STOP, SwapStep.SNAPSHOT, SwapStep.UNPROTECT)
    (kept,) = made.snapshots.values()
    assert [key for key in kept if key.startswith(("rootfs", "mp"))] == ["rootfs", "mp0"]
    assert kept["protection"] == 1
    assert kept["description"] == f"before syncd replaces the root by {swap.image}"
    taken = {volid for volid, one in pve.cluster.volumes.items() if swap.snapshot in one.snapshots}
    assert taken == {V0, DATA}
    assert swaps.is_swapped(swap)
    assert made.running
    assert_contract(pve)


def test_without(pve: Pve, tmp_path: Path) -> None:
    """Nobody gets a snapshot who did not ask for one, and nobody needs the privilege for it."""
    made = container(pve)
    swaps = swapper(pve, tmp_path, CREATING)
    swap = run(swaps, plan(swaps, ORDER))
    assert (swap.snapshot, made.snapshots) == ("", {})
    assert SwapStep.SNAPSHOT not in swap.steps


def test_rolled_back(pve: Pve, tmp_path: Path) -> None:
    """What the new software did to root and data is taken back by a rollback to the snapshot."""
    made = container(pve)
    before = dict(made.config)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED))
    pve.cluster.volumes[DATA].content = "migrated"
    roll_back(pve.cluster, made, swap.snapshot)
    assert made.config == before | {
        "description": swap.description,
        "parent": swap.snapshot,
        "unused0": swap.new_volume,
    }
    assert (pve.cluster.volumes[V0].content, pve.cluster.volumes[DATA].content) == (OLD, "data")
    assert not swaps.remove_old(swap)
    assert V0 in pve.cluster.volumes


@pytest.mark.parametrize(
    "options", [{"mp1": "files:100/vm-100-disk-0.raw,mp=/b"}, {"mp1": "/srv,mp=/b"}]
)
def test_refused(pve: Pve, tmp_path: Path, options: dict[str, Any]) -> None:
    """Where one volume cannot be in a snapshot, nothing is changed, and a way out is told."""
    pve.cluster.storage(Storage("files", "dir", ("rootdir",)))
    container(pve, **options)
    swaps = swapper(pve, tmp_path)
    with pytest.raises(RequestError, match="container 100 cannot have a snapshot") as refusal:
        plan(swaps, SNAPPED)
    assert "vzdump 100" in refusal.value.hint
    assert {request.method for request in pve.requests} == {"GET"}
    plan(swaps, ORDER)


def test_missing_privilege(pve: Pve, tmp_path: Path) -> None:
    """The privilege is asked for before the first step, and the command that grants it is told."""
    container(pve)
    acl = dict(SNAPPING) | {"/vms/100": [*privileges.ON_REPLACED]}
    with pytest.raises(PublishError, match=r"VM\.Snapshot on /vms/100 is missing") as refusal:
        plan(swapper(pve, tmp_path, acl), SNAPPED)
    assert "VM.PowerMgmt,VM.Snapshot" in refusal.value.hint
    assert {request.method for request in pve.requests} == {"GET"}


def test_fails(pve: Pve, tmp_path: Path) -> None:
    """A snapshot that fails is told with the end of the log, and can be undone."""
    container(pve)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED), SwapStep.STOP)
    pve.cluster.snapshot_failure = "zfs error: out of space"
    with pytest.raises(PublishError, match=r"got no snapshot: zfs error: out of space") as failure:
        swaps.do(SwapStep.SNAPSHOT, swap, quiet)
    assert "starting cleanup" in failure.value.hint
    swaps.undo(swap, quiet)
    assert state(pve) == before


def test_started_meanwhile(pve: Pve, tmp_path: Path) -> None:
    """Of a container that somebody started meanwhile no snapshot is taken."""
    made = container(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED), SwapStep.STOP)
    made.running = True
    with pytest.raises(PublishError, match="somebody started container 100"):
        swaps.do(SwapStep.SNAPSHOT, swap, quiet)
    assert made.snapshots == {}


def test_under_way(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whose order broke off is waited for, and deleted, before the container starts."""
    monkeypatch.setattr(tasks, "_SETTLING", 0.01)
    made = container(pve)
    before = state(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED), SwapStep.STOP)
    pve.cluster.tasks_may_finish.clear()
    when_asked(pve, "/snapshot", lambda: setattr(pve.cluster, "lost_answers", 1))
    with pytest.raises(PublishError, match="broke off"):
        swaps.do(SwapStep.SNAPSHOT, swap, quiet)
    assert made.config["lock"] == "snapshot"
    swaps.undo(swap, lambda _: pve.cluster.tasks_may_finish.set())
    assert state(pve) == before
    assert made.snapshots == {}


def test_kept(pve: Pve, tmp_path: Path) -> None:
    """A way back may leave the snapshot, and nothing else."""
    made = container(pve)
    before = dict(made.config)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED))
    for _ in range(2):
        swaps.undo(swap, quiet, keep_snapshot=True)
        assert made.config == before | {"parent": swap.snapshot}
        assert set(pve.cluster.volumes) == {V0, DATA}
        assert pve.cluster.volumes[V0].snapshots == {swap.snapshot: OLD}


def test_old_removed(pve: Pve, tmp_path: Path) -> None:
    """With the old root goes the snapshot, which has it; the data volumes stay."""
    made = container(pve)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, SNAPPED))
    assert swaps.remove_old(swap)
    assert made.snapshots == {}
    assert {volid: one.content for volid, one in pve.cluster.volumes.items()} == {
        DATA: "data",
        swap.new_volume: NEW,
    }
    assert not any(key.startswith("unused") for key in made.config)


def test_held(pve: Pve, tmp_path: Path) -> None:
    """An old root that a snapshot of somebody else has is not forgotten, but removed afterwards."""
    made = container(pve)
    swaps = swapper(pve, tmp_path)
    made.snapshots["nightly"] = {**made.config, "snaptime": 1}
    swap = run(swaps, plan(swaps, SNAPPED))
    with pytest.raises(PublishError, match=f"{V0} of container 100 stays while.*: nightly"):
        swaps.remove_old(swap)
    assert made.config[swap.unused_key] == V0
    assert list(made.snapshots) == ["nightly", swap.snapshot]
    del made.snapshots["nightly"]
    assert swaps.remove_old(swap)
    assert V0 not in pve.cluster.volumes
