"""Files carried over from the old root, where this process is root on the container's node."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.errors import PublishError, RequestError
from syncd.targets.proxmox import mounted_roots
from syncd.targets.root_swap import SSH_HOST_KEYS, SwapStep
from tests.fakes.pct import Pct
from tests.fakes.pve import Pve
from tests.targets.proxmox.test_root_swapper import (
    ORDER,
    V0,
    container,
    plan,
    quiet,
    run,
    swapper,
)

KEY = Path("etc/ssh/ssh_host_ed25519_key")


@pytest.fixture
def pct(pve: Pve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pct:
    """Be root on pve1, where container 100 has a host key in its old root."""
    container(pve)
    double = Pct.installed(pve.cluster, tmp_path, monkeypatch)
    key = double.root(V0) / KEY
    key.parent.mkdir(parents=True)
    key.write_text("the old machine's")
    return double


def locks(pve: Pve) -> list[object]:
    return [one.config["lock"] for one in pve.cluster.containers.values() if "lock" in one.config]


def test_host_keys(pve: Pve, tmp_path: Path, pct: Pct) -> None:
    """Without a wish the SSH host keys come along, and both roots are unmounted afterwards."""
    swaps = swapper(pve, tmp_path)
    swap = plan(swaps)
    assert swap.carry == (SSH_HOST_KEYS,)
    assert swap.steps.index(SwapStep.CARRY) == swap.steps.index(SwapStep.REMOVE) - 1
    swap = run(swaps, swap)
    assert (pct.root(swap.new_volume) / KEY).read_text() == "the old machine's"
    assert any("carried over from the old root" in warning for warning in swap.warnings)
    assert pct.calls == ["mount 100", "mount 101", "unmount 101", "unmount 100"]
    assert locks(pve) == []
    assert swaps.is_swapped(swap)


def test_no_host_keys(pve: Pve, tmp_path: Path, pct: Pct) -> None:
    """A root without host keys has nothing to carry, and nothing is said of it."""
    (pct.root(V0) / KEY).unlink()
    swap = run(swapper(pve, tmp_path), plan(swapper(pve, tmp_path)))
    assert not any("carried over" in warning for warning in swap.warnings)


def test_nothing(pve: Pve, tmp_path: Path, pct: Pct) -> None:
    """Who wants nothing carried over gets nothing mounted."""
    swaps = swapper(pve, tmp_path)
    swap = plan(swaps, replace(ORDER, carry=()))
    assert SwapStep.CARRY not in swap.steps
    run(swaps, swap)
    assert pct.calls == []


def test_absent(pve: Pve, tmp_path: Path, pct: Pct) -> None:
    """A path that the old root does not have fails the step, and is not passed over."""
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps, replace(ORDER, carry=("/srv/state",))), SwapStep.INSPECT)
    with pytest.raises(PublishError, match=r"/srv/state cannot be carried over \(srv\)"):
        swaps.do(SwapStep.CARRY, swap, quiet)
    assert locks(pve) == []
    swaps.undo(swap, quiet)


@pytest.mark.parametrize("failing", ["mount 100", "mount 101", "unmount 101", "unmount 100"])
def test_undone(pve: Pve, tmp_path: Path, pct: Pct, failing: str) -> None:
    """Whatever stays mounted half-way, the way back unmounts it first."""
    before = dict(pve.cluster.containers[100].config)
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.INSPECT)
    pct.failure = failing
    with pytest.raises(PublishError, match=f"pct {failing} failed"):
        swaps.do(SwapStep.CARRY, swap, quiet)
    pct.failure = None
    swaps.undo(swap, quiet)
    assert locks(pve) == []
    assert pve.cluster.containers[100].config == before
    assert list(pve.cluster.containers) == [100]


def test_locked_meanwhile(pve: Pve, tmp_path: Path, pct: Pct) -> None:
    """A container that somebody else has mounted meanwhile is not unmounted."""
    swaps = swapper(pve, tmp_path)
    swap = run(swaps, plan(swaps), SwapStep.INSPECT)
    pve.cluster.containers[100].config["lock"] = "mounted"
    with pytest.raises(PublishError, match=r"container 100 is locked meanwhile \(mounted\)"):
        swaps.do(SwapStep.CARRY, swap, quiet)
    assert pct.calls == []


@pytest.mark.parametrize("lacking", ["root", "capability", "program", "node"])
def test_no_access(
    pve: Pve, tmp_path: Path, pct: Pct, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Where nobody can mount a root, host keys stay behind, and a wish is refused with the way."""
    if lacking == "root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    elif lacking == "capability":
        pct.capabilities("0000000000000000")
    elif lacking == "program":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    else:
        monkeypatch.setattr(socket, "gethostname", lambda: "pve2")
    swaps = swapper(pve, tmp_path)
    assert plan(swaps).carry == ()
    with pytest.raises(RequestError, match=r"/srv/state cannot be carried over.*pct mount"):
        plan(swaps, replace(ORDER, carry=("/srv/state",)))
    swap = run(swaps, plan(swaps, replace(ORDER, carry=())), SwapStep.INSPECT)
    pve.cluster.containers[100].config["lock"] = "mounted"
    with pytest.raises(PublishError, match=r"still mounted on pve1; as root on pve1: pct unmount"):
        swaps.undo(replace(swap, carry=(SSH_HOST_KEYS,)), quiet)


@pytest.mark.usefixtures("pct")
@pytest.mark.parametrize("path", ["etc/ssh", "/", "/a/../b"])
def test_no_path(pve: Pve, tmp_path: Path, path: str) -> None:
    """What is no absolute path is refused before anything is changed."""
    with pytest.raises(RequestError, match="no absolute path below /"):
        plan(swapper(pve, tmp_path), replace(ORDER, carry=(path,)))


def test_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's complaint is the error; so is its absence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mounted_roots, "can_mount", lambda _: True)
    with pytest.raises(PublishError, match="pct unmount 100 is not possible"):
        mounted_roots.release(100, "pve1")
    script = tmp_path / "pct"
    script.write_text('#!/bin/sh\necho "$LC_ALL: no lock in $1 $2" >&2; exit 255\n')
    script.chmod(0o755)
    with pytest.raises(PublishError, match="failed: C: no lock in unmount 100"):
        mounted_roots.release(100, "pve1")
