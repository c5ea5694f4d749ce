"""The process that a job of the command line belongs to, and whether the process still runs.

A process id alone says little: the kernel gives it to other processes later, after a reboot soon.
So a process is named by the boot of the machine, its namespace of process ids, its id, and the time
it began (proc_pid_stat(5)).
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BEGAN = 19  # the position of `starttime` behind the name, which may contain anything


def this_process() -> str:
    """Return the name of the running process, for `runs`."""
    pid = os.getpid()
    return f"{_boot()} {_namespace()} {pid} {_began(pid)}"


def runs(process: str) -> bool:
    """Tell whether a process that `this_process` named may still run.

    A process of another container of this machine cannot be asked for, and counts as running.
    """
    try:
        boot, namespace, pid, began = process.split()
        number = int(pid)
    except ValueError:
        return False
    if boot != _boot() and "?" not in (boot, _boot()):
        return False
    if namespace != _namespace():
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user
    # A unit with ProtectProc= does not see when another user's process began.
    return _began(number) in (began, "?")


def _boot() -> str:
    """Return the machine's boot; a question mark where it is not shown, as by ProcSubset=pid."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "?"


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _began(pid: int) -> str:
    """Return when a process began, in ticks since the boot; a question mark if it is not shown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "?"
    return stat.rpartition(")")[2].split()[_BEGAN]
