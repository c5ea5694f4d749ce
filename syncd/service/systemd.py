"""What the process and its service manager tell each other.

Sources: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

_FIRST_SOCKET = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


def inherited_socket() -> socket.socket | None:
    """Return the listening socket that systemd hands over, or None."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    inherited = socket.socket(fileno=_FIRST_SOCKET)
    inherited.setblocking(False)
    return inherited


async def watchdog() -> None:
    """Tell systemd that the loop runs, twice in each of its spans (sd_watchdog_enabled(3)).

    A manager that does not read now has words of ours waiting, and is not waited for.
    """
    span = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while span:
        tell_systemd("WATCHDOG=1", wait=False)
        await asyncio.sleep(span)


def tell_systemd(state: str, *, wait: bool = True) -> None:
    """Send a state to the service manager, if there is one (sd_notify(3)).

    With `wait`, a manager whose queue is full is waited for.
    """
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(wait)
        sender.sendto(state.encode(), place.replace("@", "\0", 1))
