"""What `process` promises: a process that ended is known as ended, whoever has its id now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from syncd.sync.process import runs, this_process

SCRIPT = (
    "import sys; from syncd.sync.process import this_process; print(this_process(), flush=True)"
)


def test_a_process_until_its_end() -> None:
    """A process runs until it is killed, and not afterwards."""
    assert runs(this_process())
    script = f"{SCRIPT}; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline()
        assert runs(name)
        process.kill()
        process.wait()
        assert not runs(name)


def test_who_belongs_to_another_user() -> None:
    """The process of another user can be seen, too."""
    boot, namespace, _, _ = this_process().split()
    began = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
    assert runs(f"{boot} {namespace} 1 {began}")
    assert not runs(f"{boot} {namespace} 1 {int(began) + 1}")


@pytest.mark.parametrize(
    ("position", "value", "expected"),
    [
        (0, "another-boot", False),
        (2, "4194305", False),
        (3, "1", False),
    ],
)
def test_not_the_same(position: int, value: str, expected: bool) -> None:
    """Another boot, id or beginning is another process."""
    parts = this_process().split()
    parts[position] = value
    assert runs(" ".join(parts)) is expected


@pytest.mark.parametrize("name", ["", "nonsense", "a b c d"])
def test_no_process(name: str) -> None:
    """What names no process, as in a ledger of an older release, does not run."""
    assert not runs(name)


def test_another_container() -> None:
    """A process of another namespace cannot be asked for, and counts as running."""
    boot, _, _, began = this_process().split()
    assert runs(f"{boot} pid:[1] 4194305 {began}")


def test_a_boot_that_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where /proc shows no boot (ProcSubset=pid), the id and the beginning decide alone."""
    outside = this_process()
    monkeypatch.setattr("syncd.sync.process._BOOT_ID", tmp_path / "none")
    inside = this_process()
    assert inside.split()[0] == "?"
    assert runs(outside)
    assert runs(inside)
    assert not runs(" ".join([*outside.split()[:3], "1"]))
    monkeypatch.undo()
    assert runs(inside)
