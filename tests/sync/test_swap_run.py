"""Replacements broken off at every step, and ended by the next process."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from syncd.errors import PublishError, StillRunningError, TargetUnavailableError
from syncd.progress import Advance, Silence
from syncd.sync.ledger import Ledger
from syncd.sync.readiness import Readiness
from syncd.sync.replacement import UNFINISHED, Replacement, ReplacementState
from syncd.sync.swap_run import SwapRun
from syncd.targets import RootSwap, RootSwaps, SwapStep
from syncd.targets.proxmox.root_swapper import RootSwapper
from syncd.targets.root_swap import volume_of
from tests.fakes.pct import Pct
from tests.fakes.pve import Pve
from tests.targets.proxmox.test_root_swapper import (
    NEW,
    SNAPPED,
    V0,
    container,
    plan,
    swapper,
)

STEPS = tuple(step for step in SwapStep if step is not SwapStep.READY)


class Killed(BaseException):
    """What a process that is killed does not survive."""


class Dying:
    """The steps of swaps, in a process that is killed at one of them."""

    def __init__(self, roots: RootSwapper, at: str, *, after: bool) -> None:
        self._roots = roots
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._roots, name)

    def do(self, step: SwapStep, swap: RootSwap, advance: Advance) -> RootSwap:
        if step == self._at and not self._after:
            raise Killed
        swap = self._roots.do(step, swap, advance)
        if step == self._at:
            raise Killed
        return swap

    def undo(self, swap: RootSwap, advance: Advance, *, keep_snapshot: bool = False) -> None:
        if self._at != "undo":
            self._roots.undo(swap, advance, keep_snapshot=keep_snapshot)
            return
        if self._after:
            self._roots.undo(swap, advance, keep_snapshot=keep_snapshot)
        raise Killed


def dying(roots: RootSwapper, at: str, *, after: bool) -> RootSwaps:
    return cast(RootSwaps, Dying(roots, at, after=after))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def run_on(ledger: Ledger, folder: Path) -> SwapRun:
    return SwapRun(ledger, lambda: folder / "locks")


def state(pve: Pve) -> Any:
    cluster = pve.cluster
    guests = {vmid: (c.config, c.running, c.pending) for vmid, c in cluster.containers.items()}
    return deepcopy((guests, cluster.volumes))


def check_new(pve: Pve, old: Any, swap: RootSwap) -> None:
    """Check that a container is wholly new, and that nothing else differs or is left over."""
    (config, running, pending), before = state(pve)[0][100], old[0][100][0]
    assert config == before | {
        "rootfs": swap.new_root,
        swap.unused_key: V0,
        "env": "PATH=/bin\0MINE=yes",
        "entrypoint": "/bin/app",
        "cmode": "console",
        "description": swap.description,
        **({"parent": swap.snapshot} if swap.snapshot else {}),
    }
    assert (running, pending) == (True, {})
    assert set(pve.cluster.containers) == {100}
    assert set(pve.cluster.volumes) == {*old[1], swap.new_volume}
    assert pve.cluster.volumes[swap.new_volume].content == NEW


@pytest.fixture
def pct(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pct:
    """Be root on the container's node, so that SSH host keys are carried over."""
    return Pct.installed(pve.cluster, tmp_path, monkeypatch)


def add_host_key(pct: Pct) -> None:
    key = pct.root(V0) / "etc" / "ssh" / "ssh_host_key"
    key.parent.mkdir(parents=True)
    key.write_text("the old machine's")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed(pve: Pve, pct: Pct, tmp_path: Path, step: SwapStep, *, after: bool) -> None:
    """Killed before or after any step, the container ends wholly new or wholly as it was."""
    made = container(pve, protection=1)
    add_host_key(pct)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    replacement = Replacement("cluster", plan(roots, SNAPPED))
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(Killed):
        run_on(ledger, tmp_path).carry_out(replacement, dying(roots, step, after=after), Silence())
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (left,) = ledger.replacements.of(*UNFINISHED)
        assert left.step is step
        ended = run_on(ledger, tmp_path).resume(left, roots, Silence())
        assert ledger.replacements.of(*UNFINISHED) == []
    swapped = list(SwapStep).index(step) + after > list(SwapStep).index(SwapStep.SWAP)
    assert ended.state is (ReplacementState.REPLACED if swapped else ReplacementState.UNDONE)
    if swapped:
        check_new(pve, old, ended.swap)
        assert list(made.snapshots) == [ended.swap.snapshot]
    else:
        assert state(pve) == old
        assert made.snapshots == {}


def test_killed_while_mounted(pve: Pve, pct: Pct, tmp_path: Path, ledger: Ledger) -> None:
    """Killed while both roots are mounted and locked, the container is unmounted and as it was."""
    container(pve)
    add_host_key(pct)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    run, replacement = run_on(ledger, tmp_path), Replacement("cluster", plan(roots))
    with pytest.raises(Killed):
        run.carry_out(replacement, dying(roots, SwapStep.CARRY, after=False), Silence())
    (left,) = ledger.replacements.of(*UNFINISHED)
    for vmid in (100, left.swap.scratch):
        assert pct.run(["pct", "mount", str(vmid)]).returncode == 0
    assert run.resume(left, roots, Silence()).state is ReplacementState.UNDONE
    assert state(pve) == old


@pytest.mark.parametrize("after", [False, True])
def test_killed_going_back(pve: Pve, tmp_path: Path, ledger: Ledger, *, after: bool) -> None:
    """Killed on the way back, the next process goes back, not forward again."""
    container(pve)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    pve.cluster.bad_images.add(NEW)
    run = run_on(ledger, tmp_path)
    with pytest.raises(Killed):
        run.carry_out(
            Replacement("cluster", plan(roots)), dying(roots, "undo", after=after), Silence()
        )
    pve.cluster.bad_images.clear()
    (left,) = ledger.replacements.of(*UNFINISHED)
    assert left.state is ReplacementState.RETURNING
    assert run.resume(left, roots, Silence()).state is ReplacementState.UNDONE
    assert state(pve) == old


def test_does_not_start(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """A container that does not start on its new root goes back, and the reason is told."""
    container(pve)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    pve.cluster.bad_images.add(NEW)
    with pytest.raises(PublishError, match=r"is as it was, since.*does not start"):
        run_on(ledger, tmp_path).carry_out(Replacement("cluster", plan(roots)), roots, Silence())
    assert state(pve) == old
    (ended,) = ledger.replacements.of(ReplacementState.UNDONE)
    assert "does not start" in ended.reason


def test_not_ready(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """A container that gets no address in time goes back; one that need not have one does not."""
    container(pve)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    pve.cluster.mute_images.add(NEW)
    run = run_on(ledger, tmp_path)
    short = Replacement("cluster", plan(roots), readiness=Readiness(timeout=0.01))
    with pytest.raises(PublishError, match="it has no address"):
        run.carry_out(short, roots, Silence())
    assert state(pve) == old
    patient = Replacement("cluster", plan(roots), readiness=Readiness("running"))
    assert run.carry_out(patient, roots, Silence()).state is ReplacementState.REPLACED


def test_snapshot_kept(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """Once software of the new root ran, the snapshot outlives the way back, and that is told."""
    made = container(pve)
    roots = swapper(pve, tmp_path)
    pve.cluster.mute_images.add(NEW)
    run, swap = run_on(ledger, tmp_path), plan(roots, SNAPPED)
    short = Replacement("cluster", swap, readiness=Readiness(timeout=0.01))
    with pytest.raises(PublishError, match="it has no address") as failure:
        run.carry_out(short, roots, Silence())
    assert f"pct rollback 100 {swap.snapshot}" in failure.value.hint
    assert (
        f"pct rollback 100 {swap.snapshot}" in ledger.replacements.of(*ReplacementState)[0].reason
    )
    assert list(made.snapshots) == [swap.snapshot]
    assert volume_of(made.config["rootfs"]) == V0


def test_snapshot_dropped(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """Before that nobody needs the snapshot, so it goes with the rest of the replacement."""
    container(pve)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    pve.cluster.create_failure = "tar: exit code 2"
    with pytest.raises(PublishError, match="exit code 2") as failure:
        run_on(ledger, tmp_path).carry_out(
            Replacement("cluster", plan(roots, SNAPPED)), roots, Silence()
        )
    assert failure.value.hint == ""
    assert state(pve) == old


def test_resumed_not_ready(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """A container that is finished and does not become ready has ended where it was before."""
    container(pve)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    pve.cluster.mute_images.add(NEW)
    run = run_on(ledger, tmp_path)
    short = Replacement("cluster", plan(roots), readiness=Readiness(timeout=0.01))
    with pytest.raises(Killed):
        run.carry_out(short, dying(roots, SwapStep.SWAP, after=True), Silence())
    (left,) = ledger.replacements.of(*UNFINISHED)
    ended = run.resume(left, roots, Silence())
    assert (ended.state, "it has no address" in ended.reason) == (ReplacementState.UNDONE, True)
    assert state(pve) == old


def test_unreachable(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """Where the way back fails as well, the replacement stays in the ledger, and it is said."""
    container(pve)
    old = state(pve)
    roots = swapper(pve, tmp_path)
    run = run_on(ledger, tmp_path)
    node = pve.cluster.nodes["pve1"]

    class Cut(Dying):
        def do(self, step: SwapStep, swap: RootSwap, advance: Advance) -> RootSwap:
            if step is SwapStep.UNPACK:
                node.online = False
            return self._roots.do(step, swap, advance)

    cut = cast(RootSwaps, Cut(roots, "", after=False))
    with pytest.raises(TargetUnavailableError, match=r"is not finished.*--resume"):
        run.carry_out(Replacement("cluster", plan(roots)), cut, Silence())
    node.online = True
    (left,) = ledger.replacements.of(*UNFINISHED)
    again = Replacement("cluster", left.swap)
    with pytest.raises(StillRunningError, match="earlier replacement"):
        run.carry_out(again, roots, Silence())
    assert run.resume(left, roots, Silence()).state is ReplacementState.UNDONE
    assert state(pve) == old


def test_alone(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """A replacement that runs is not resumed by another process."""
    container(pve)
    roots = swapper(pve, tmp_path)
    run = run_on(ledger, tmp_path)

    class Nosy(Dying):
        def do(self, step: SwapStep, swap: RootSwap, advance: Advance) -> RootSwap:
            (left,) = ledger.replacements.of(*UNFINISHED)
            with pytest.raises(StillRunningError, match="another process"):
                run_on(ledger, tmp_path).resume(left, roots, Silence())
            return self._roots.do(step, swap, advance)

    nosy = cast(RootSwaps, Nosy(roots, "", after=False))
    done = run.carry_out(Replacement("cluster", plan(roots)), nosy, Silence())
    assert done.state is ReplacementState.REPLACED
    assert run.resume(done, roots, Silence()) == done


def test_gone(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """A replacement whose container was destroyed meanwhile is ended."""
    container(pve)
    roots = swapper(pve, tmp_path)
    run = run_on(ledger, tmp_path)
    with pytest.raises(Killed):
        run.carry_out(
            Replacement("cluster", plan(roots)), dying(roots, "stop", after=False), Silence()
        )
    pve.cluster.containers.clear()
    (left,) = ledger.replacements.of(*UNFINISHED)
    assert run.resume(left, roots, Silence()).reason == "the container is gone"


def test_hidden(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """A container that the token does not see now is not taken for a destroyed one."""
    container(pve)
    roots = swapper(pve, tmp_path)
    run = run_on(ledger, tmp_path)
    with pytest.raises(Killed):
        run.carry_out(
            Replacement("cluster", plan(roots)), dying(roots, "stop", after=False), Silence()
        )
    (left,) = ledger.replacements.of(*UNFINISHED)

    for token in pve.cluster.tokens.values():
        token.acl = {path: held - {"VM.Audit"} for path, held in token.acl.items()}
    with pytest.raises(PublishError, match="container 100 is not shown to the token now"):
        run.resume(left, roots, Silence())
    assert ledger.replacements.of(*UNFINISHED) == [left]


def test_old_root(pve: Pve, tmp_path: Path, ledger: Ledger) -> None:
    """The old root is removed when its time is over, not before; protection comes back."""
    made = container(pve, protection=1)
    roots = swapper(pve, tmp_path)
    run = run_on(ledger, tmp_path)
    done = run.carry_out(Replacement("cluster", plan(roots), keep=60), roots, Silence())
    assert done.ended is not None
    assert done.due is not None
    assert (done.due - done.ended).total_seconds() == 60
    assert replace(done, keep=None).due is None
    assert run.remove_old(done, roots).state is ReplacementState.CLOSED
    assert V0 not in pve.cluster.volumes
    assert made.config["protection"] == 1
