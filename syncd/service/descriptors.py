"""The file descriptors of the process: as many as it may have, most of them for work.

A conversion holds its layers open, and the templates whose frames it copies; connections of peers
take a part of the descriptors only.  Where none is left all the same, asyncio logs each attempt to
accept a connection, with a traceback, thousands of times a minute: here that is one line a minute.
"""

from __future__ import annotations

import asyncio
import errno
import resource
from typing import Any

import structlog

from syncd.web import HttpLimits, Seldom

log = structlog.stdlib.get_logger()

_OURS = 4  # one of so many descriptors may be a connection
_USUAL = 1024  # descriptors where nobody has set a limit
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def raised_limit() -> int:
    """Raise the process's soft limit to its hard limit; return how many descriptors it may have.

    A process may do so without a privilege (getrlimit(2)), unless a filter of system calls forbids
    it, as that of the unit may.
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:
        return _USUAL
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


def http_limits(descriptors: int) -> HttpLimits:
    """Return the bounds of HTTP in a process that may have so many descriptors."""
    usual = HttpLimits()
    if descriptors == resource.RLIM_INFINITY:
        return usual
    connections = max(1, min(usual.connections, descriptors // _OURS))
    return HttpLimits(connections=connections)


def log_seldom(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop tell once a minute that it cannot accept connections, in one line."""
    seldom = Seldom()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if not (isinstance(exc, OSError) and exc.errno in _NONE_LEFT and "socket" in context):
            loop.default_exception_handler(context)
        elif (passed_over := seldom()) is not None:
            log.error("no connection can be accepted", error=exc.strerror, also=passed_over)

    loop.set_exception_handler(handle)
