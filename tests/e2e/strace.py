"""Faults of system calls, put into a process that runs: strace, which answers for the kernel.

strace counts the calls of each thread by itself, so `when=2` is the second call of every thread
(strace(1), "Tampering").  A path narrows the faults to the calls that touch this very file.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.command import CommandError, wait_for


@dataclass(frozen=True)
class Fault:
    """What becomes of the calls of `names`, such as `error=EIO` or `delay_enter=1s`.

    `when` is strace's expression of which calls: `3` the third, `1+` all, `2+3` each third from the
    second on.  `files` narrows that to calls which touch one of these.
    """

    names: str
    what: str
    when: str = "1+"
    files: Sequence[Path] = ()

    def __str__(self) -> str:
        return f"{self.names}:{self.what}:when={self.when}"

    @property
    def arguments(self) -> list[str]:
        """The arguments of strace."""
        paths = [word for file in self.files for word in ("-P", str(file))]
        return ["-e", f"trace={self.names}", "-e", f"inject={self}", *paths]


class Faults:
    """What strace does to a process and to all that it starts, while the context is open."""

    def __init__(self, log: Path) -> None:
        self._log = log

    @property
    def count(self) -> int:
        """How many calls met the fault until now."""
        text = self._log.read_text(errors="replace")
        return text.count("(INJECTED)") + text.count("(DELAYED)")


@contextmanager
def injected(pid: int, fault: Fault, log: Path) -> Iterator[Faults]:
    """Put a fault into a process, its threads and its children; `log` is strace's own."""
    children = [int(word) for word in _descendants(pid)]
    targets = [word for each in (pid, *children) for word in ("-p", str(each))]
    errors = log.with_suffix(".err")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            ["strace", "-f", "-o", log, *fault.arguments, *targets],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    try:

        def attached() -> bool:
            if process.poll() is not None:
                raise CommandError(f"strace ended: {errors.read_text()}")
            return errors.read_text().count(" attached") >= len(targets) // 2

        wait_for("strace", attached, timeout=20, pause=0.01)
        yield Faults(log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        if process.poll() is None:
            process.kill()
            process.wait()


def _descendants(pid: int) -> list[str]:
    """Return the processes below a process."""
    found: list[str] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            found += [child, *_descendants(int(child))]
    return found
