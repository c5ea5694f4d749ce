"""What a machine without room for another process does to `ForkServer`: each fork is refused.

Only the server may import this module.
"""

from __future__ import annotations

import errno
import os
import socket


def refuse() -> int:
    """Refuse, as the kernel does beyond TasksMax (fork(2), EAGAIN)."""
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


def main(connection: socket.socket) -> None:
    """Never be called."""


os.fork = refuse
