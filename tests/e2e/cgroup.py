"""A control group with a bound of memory, as systemd makes one of a unit's `MemoryMax=`.

The machine may have the hierarchy of version 2 or that of version 1 (cgroups(7)).  Needs root.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from uuid import uuid4

from tests.e2e.command import wait_for

_TOP = Path("/sys/fs/cgroup")


class MemoryBound:
    """A control group of at most so many bytes, there while the context is open."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._is_unified = (_TOP / "cgroup.controllers").exists()
        self._folder = (_TOP if self._is_unified else _TOP / "memory") / f"e2e-{uuid4().hex[:8]}"

    def __enter__(self) -> MemoryBound:
        if self._is_unified:
            (_TOP / "cgroup.subtree_control").write_text("+memory")
        self._folder.mkdir()
        names = ("memory.max", "memory.swap.max")
        if not self._is_unified:
            names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        for name in names:
            (self._folder / name).write_text(str(self._most if "swap.max" not in name else 0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        wait_for("the end of the group's processes", lambda: not self.processes, timeout=30)
        self._folder.rmdir()

    @property
    def entering(self) -> tuple[str, ...]:
        """The command that runs another command within the group."""
        script = f'echo $$ >{self._folder}/cgroup.procs && exec "$@"'
        return ("/bin/sh", "-c", script, "sh")

    @property
    def processes(self) -> list[int]:
        """The ids of the group's processes."""
        return [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]

    @property
    def kills(self) -> int:
        """How many of the group's processes the kernel killed for lack of memory."""
        name = "memory.events" if self._is_unified else "memory.oom_control"
        lines = (self._folder / name).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])
