"""Large documents: one at a time of each host, and a few of all, so that many take little memory.

Those of real images take some kilobytes.  Whoever waits does so within the deadline of its look: a
host that sends slowly keeps only its own looks waiting, unless some hosts do so at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakValueDictionary

from syncd.errors import RegistryUnavailableError
from syncd.oci.registry.deadline import time_left

LARGE = 256 << 10
"""Bytes of a document beyond which it is received in turn."""
HOSTS = 3
"""Hosts of which large documents are received at a time."""

_hosts = threading.BoundedSemaphore(HOSTS)
_turns: WeakValueDictionary[str, threading.BoundedSemaphore] = WeakValueDictionary()
_changing = threading.Lock()


@contextmanager
def turn_of(host: str) -> Iterator[None]:
    """Receive a large document of a host; raise RegistryUnavailableError when the look is over."""
    with _changing:
        turn = _turns.setdefault(host, threading.BoundedSemaphore())
    with ExitStack() as stack:
        for place in (turn, _hosts):
            if not place.acquire(timeout=min(time_left(), threading.TIMEOUT_MAX)):
                raise RegistryUnavailableError(
                    f"a large document of {host} had no turn: others come too slowly",
                    "the next trigger tries again",
                )
            stack.callback(place.release)
        yield
