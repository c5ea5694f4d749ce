"""Who calls through reverse proxies: the address that a trusted proxy saw.

Whoever connects may write any `X-Forwarded-For`.  So the header counts only where the connection
comes from a proxy that is configured (`server.proxies`), and it is read from its end, where each
proxy adds the address that it saw: the first one that is no proxy's is the client's.  What stands
before that is the client's own invention.

A Unix socket is on this host, like loopback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice

from aiohttp import web

from syncd.events import Network
from syncd.web.backend import Backend
from syncd.web.peers import address_of

_HOPS_MAX = 32
_HERE = IPv4Address("127.0.0.1")

Address = IPv4Address | IPv6Address


def client_of(peer: str | None, forwarded: Sequence[str], proxies: Iterable[str]) -> Address | None:
    """Return the address of a client, or None where a trusted proxy tells none that is one.

    `peer` is the address that the socket tells, none for a Unix socket; `forwarded` are the
    `X-Forwarded-For` headers in their order.
    """
    trusted = networks(tuple(proxies))
    address = _address(peer) if peer else _HERE
    if not trusted:
        return address
    for hop in islice(_hops(forwarded), _HOPS_MAX):
        if address is None or not any(address in network for network in trusted):
            break
        address = _address(hop)
    return address


def client_address(request: web.Request, backend: Backend) -> Address | None:
    """Return the address of who sent a request, as `client_of` does."""
    headers = request.headers.getall("X-Forwarded-For", [])
    return client_of(request.remote, headers, backend.live.config.server.proxies)


def counted_as(request: web.Request, backend: Backend) -> str:
    """Return what a client counts as (`syncd.web.peers.address_of`), or its proxy if need be."""
    client = client_address(request, backend)
    return address_of(request.remote if client is None else str(client))


def _hops(forwarded: Sequence[str]) -> Iterator[str]:
    """Yield what proxies wrote, the last one first; no more of a long header is cut up."""
    for header in reversed(forwarded):
        yield from reversed(header.rsplit(",", _HOPS_MAX))


@lru_cache(maxsize=8)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the networks that the configuration names; it may name many."""
    return tuple(map(ip_network, texts))


def _address(text: str) -> Address | None:
    """Return the address in a text; a port, brackets and a zone may be around it."""
    text = text.strip()
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
