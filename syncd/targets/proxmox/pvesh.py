"""Calls of the API through `pvesh`, as root on a Proxmox VE host, under proxmoxer's local backend.

proxmoxer takes any line on stderr for a failure, and anything else for a success.  Here the exit
status decides: `pvesh` also succeeds with lines on stderr, such as "Task finished with 1
warning(s)!" or the complaint of Perl about a locale.  Each call starts a `pvesh`, which takes about
a second.

Source: `PVE::CLI::pvesh`, and measured on pve-manager 9.2.11.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from typing import Any

from proxmoxer import ProxmoxAPI
from proxmoxer.backends.local import LocalSession

PROGRAM = "pvesh"
_UPID = re.compile(
    r"UPID:[A-Za-z0-9-]+:[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[0-9A-Fa-f]{8}:[^:\s]+:[^:\s]*:[^:\s]+:"
)


def connect(timeout: float) -> Any:
    """Return a proxmoxer whose calls run `pvesh`, for at most `timeout` seconds each."""
    api = ProxmoxAPI(backend="local", timeout=timeout)
    api._store["session"] = _Session(timeout=timeout)  # proxmoxer has no public name for it
    return api


def upid_in(answer: object) -> object:
    """Return the UPID within an answer, or the answer itself where it has none.

    For another node, `pvesh` answers all that the task printed and then the UPID as one string
    without line breaks.
    """
    found = _UPID.findall(answer) if isinstance(answer, str) else []
    return found[-1] if found else answer


class _Session(LocalSession):  # type: ignore[misc]  # proxmoxer has no types
    """Runs `pvesh`, and tells proxmoxer of stderr only where the call has failed."""

    def _exec(self, cmd: Sequence[str]) -> tuple[str, str, int]:
        """Return what `pvesh` printed to stdout and stderr, and its exit status.

        A task that was started and failed is no failure of the call: its `exitstatus` tells.
        """
        process = subprocess.Popen(  # noqa: S603 - no shell, and proxmoxer's own arguments
            cmd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"LC_ALL": "C"},
        )
        raw, complaints = process.communicate(timeout=self.timeout)
        printed, status = raw.decode(errors="replace"), process.returncode
        if status == 0 or _UPID.search(printed):
            return printed, "", status
        reason = complaints.decode(errors="replace").strip()
        return "", reason or f"{PROGRAM} ended with status {status}", status
