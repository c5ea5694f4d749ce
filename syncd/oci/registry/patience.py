"""How long each registry asked to be left alone: its waits are kept by all that ask it.

One job's 429 is the next job's, too, since the registry counts requests by address or account, not
by job (RFC 6585, section 4).  Pure but for the clock.
"""

from __future__ import annotations

import threading
import time

LONGEST_KEPT = 3600.0
"""Seconds that a registry can ask for at most: a wrong header must not shut it off for ever."""
_HOSTS_MAX = 1000


class Patience:
    """The waits of a process, by registry.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def note(self, host: str, seconds: float) -> None:
        """Hear that a registry asks to be left alone; the longer of two waits counts."""
        until = time.monotonic() + min(seconds, LONGEST_KEPT)
        with self._lock:
            self._until[host] = max(until, self._until.pop(host, 0.0))
            if len(self._until) > _HOSTS_MAX:
                del self._until[next(iter(self._until))]

    def left(self, host: str) -> float:
        """Return the seconds until the registry may be asked again; 0 if that is now."""
        with self._lock:
            return max(self._until.get(host, 0.0) - time.monotonic(), 0.0)
