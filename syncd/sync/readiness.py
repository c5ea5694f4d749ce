"""When a container with a new root counts as ready: it runs, has an address, or passes a probe.

A probe is an HTTP request to the container, or a command on this host; the command line alone may
name a command.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import Self

from syncd.errors import RequestError
from syncd.targets import RootSwap, RootSwaps

PATTERN = r"^(running|address|http:[0-9]{1,5}(/[!-~]*)?)$"
"""What a caller of the API may wait for."""
_HTTP = re.compile(r"http:(?P<port>\d{1,5})(?P<path>/[!-~]*)?")
_COMMAND = "command:"
_PATIENCE = 5.0  # seconds for one answer of a probe
PAUSE = 1.0
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is waited for, and for how many seconds; `text` is empty for the usual condition.

    The usual condition is `address` for a container that is configured to get one, else `running`.
    """

    text: str = ""
    timeout: float = 120.0

    @classmethod
    def parse(cls, text: str, timeout: float) -> Self:
        """Check what a person typed; raise RequestError for what is no condition."""
        known = re.fullmatch(PATTERN, text) or text.startswith(_COMMAND)
        if text and not known:
            raise RequestError(
                f"{text!r:.80} is nothing to wait for",
                "it is running, address, http:PORT/PATH or command:PROGRAM ARGUMENTS",
            )
        return cls(text, timeout)

    def lack(self, roots: RootSwaps, swap: RootSwap) -> str:
        """Return what a container lacks of being ready; empty when it is ready.

        Raise PublishError when the host cannot be asked.
        """
        if not roots.running(swap):
            return "it does not run"
        wanted = self.text or ("address" if swap.has_address else "running")
        if wanted == "running":
            return ""
        addresses = roots.addresses(swap)
        if wanted.startswith(_COMMAND):
            return _command(wanted.removeprefix(_COMMAND), swap.vmid, addresses)
        if not addresses:
            return "it has no address"
        if probe := _HTTP.fullmatch(wanted):
            return _http(addresses[0], int(probe["port"]), probe["path"] or "/")
        return ""


def _http(address: str, port: int, path: str) -> str:
    """Return why a GET of a container is not answered with 2xx or 3xx; empty when it is."""
    connection = http.client.HTTPConnection(address, port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return f"{address}:{port} gives no HTTP answer ({exc})"
    finally:
        connection.close()
    return "" if 200 <= status < 400 else f"{address}:{port}{path} answers {status}"


def _command(line: str, vmid: int, addresses: tuple[str, ...]) -> str:
    """Return why a command on this host fails; empty when it ends with 0."""
    env = os.environ | {"SYNCD_VMID": str(vmid), "SYNCD_ADDRESS": " ".join(addresses[:1])}
    try:
        done = subprocess.run(  # noqa: S603 - who typed it may run any command here
            shlex.split(line), env=env, timeout=_PATIENCE * 6, capture_output=True, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        return f"the command cannot be run: {exc}"
    return "" if done.returncode == 0 else f"the command ended with {done.returncode}"
