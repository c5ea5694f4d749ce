"""The addresses of peers, as bounds count them, and log lines that peers cannot multiply.

Whoever has an IPv6 address mostly has the whole /64 (RFC 6177), so a /64 counts as one address.  A
reverse proxy is on loopback and speaks for everybody, so loopback has no bound of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address

LOOPBACK = "loopback"
"""What stands for every peer on this host, over TCP or a Unix socket."""

_MINUTE = 60.0


def address_of(peer: str | None) -> str:
    """Return what a peer counts as: its IPv4 address, its /64 of IPv6, or LOOPBACK.

    `peer` is the address that the socket tells, with a zone perhaps (`fe80::1%eth0`); none is a
    Unix socket's.
    """
    try:
        address = ip_address((peer or "").partition("%")[0])
    except ValueError:
        return LOOPBACK
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return LOOPBACK if address.is_loopback else str(IPv6Network((int(address), 64), False))
        address = address.ipv4_mapped
    return LOOPBACK if address.is_loopback else str(address)


class Seldom:
    """Lets the first `times` of a minute through, and counts the others.

    `if (passed := seldom()) is not None: log.warning(..., passed_over=passed)`
    """

    def __init__(self, times: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._times = times
        self._clock = clock
        self._begun = -_MINUTE
        self._seen = 0

    def __call__(self) -> int | None:
        """Return how many were held back before this one, or None to hold this one back."""
        now = self._clock()
        held = 0
        if now - self._begun >= _MINUTE:
            held = max(0, self._seen - self._times)
            self._begun, self._seen = now, 0
        self._seen += 1
        return held if self._seen <= self._times else None
