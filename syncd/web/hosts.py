"""The names that this server answers to: a browser that asks for another one was led astray.

A page on the Web can have its own name resolve to this host's address, and then read what this
server answers, as if it came from the page's own server (DNS rebinding).  Such a request carries
the page's name in `Host`, so a name that is not this server's is refused (421, RFC 9110, 15.5.20).
A page has no power over addresses, so the address that the connection came to is always right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from aiohttp import web

_LOCAL = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")


def is_meant(request: web.Request, names: Iterable[str], listen: str) -> bool:
    """Tell whether a request is for this server.

    `names` are the configured ones; without any, the host's own name counts, and the host of
    `listen`, an address with a port.  Names of loopback always count.
    """
    match = _HOST.fullmatch(request.headers.get("Host", "").strip())
    if match is None:
        return False
    asked = _plain(match[1])
    known = {*map(_plain, names)} or {
        _plain(os.uname().nodename),
        _plain(listen.rpartition(":")[0]),
    }
    return asked in known or asked in _LOCAL or _is_here(request, asked)


def _plain(host: str) -> str:
    """Return a host as it is compared: in lower case, without brackets and the root's dot."""
    return host.strip("[]").rstrip(".").lower()


def _is_here(request: web.Request, host: str) -> bool:
    """Tell whether a host is the address that the connection came to; a Unix socket is here."""
    here = request.transport.get_extra_info("sockname") if request.transport else None
    if not isinstance(here, tuple):
        return request.transport is not None
    try:
        return _address(host) == _address(here[0].partition("%")[0])
    except ValueError:
        return False


def _address(text: str) -> object:
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
