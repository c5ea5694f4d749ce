"""Which addresses a registry may have that nobody configured: public ones, and no other.

Whoever names an image names a host, and a registry names further ones: a token service, a blob
store.  So a name is resolved once, each of its addresses is checked, and the connection goes to the
address that was checked: a name that means another address a moment later (DNS rebinding) leads
nowhere else.  One address that is not public spoils all of a name's.

Sources: https://www.iana.org/assignments/iana-ipv4-special-registry/ and iana-ipv6-special-registry
as `ipaddress` has them; RFC 6052, 2.1 for the IPv4 addresses in those of NAT64.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from syncd.errors import AddressRefusedError
from syncd.oci.registry.deadline import Connection, TlsConnection

_UNICAST = IPv6Network("2000::/3")  # all that is assigned to the Internet (RFC 4291, 2.4)
# What `ipaddress` of some Python that syncd runs on takes for global.
_SPECIAL = (
    IPv4Network("192.0.0.0/24"),  # protocols, and the metadata of Oracle's cloud
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # the metadata of Azure, amid public addresses
    IPv6Network("2001::/23"),  # protocols, Teredo among them
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address that nobody checked is within
    IPv6Network("3fff::/20"),  # documentation
)
_NAT64 = IPv6Network("64:ff9b::/96")
_DISCARD = 9  # any port: nothing is sent there


def is_public(text: str) -> bool:
    """Tell whether an address is one of the public Internet, and not this host's own."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
        if address not in _UNICAST:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _SPECIAL)
        and not is_own(address)
    )


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether this host has an address: it is where the kernel would send from, too."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((str(address), _DISCARD))
            return bool(ip_address(unsent.getsockname()[0]) == address)
    except OSError:  # no way leads there
        return False


def public_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a name; raise AddressRefusedError unless all of them are public.

    Raise OSError where the name has none.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = [*dict.fromkeys(str(address[0]) for *_, address in found)]
    if not all(map(is_public, addresses)):
        # Without the address: whoever asks need not learn what names mean within this network.
        raise AddressRefusedError(
            f"{host} is not at a public address, so it is not asked for an image of a registry "
            "that the configuration does not name",
            "if that is meant to be, add a [[registry]] with the host that the reference names",
        )
    return addresses


class _ToPublic:
    """Of a connection: it goes to public addresses alone."""

    _dns_host: str
    port: Any  # an integer once the connection is made

    def _new_conn(self) -> Any:
        name = self._dns_host
        try:
            addresses = public_addresses(name, self.port)
        except socket.gaierror as exc:
            raise NameResolutionError(name, self, exc) from exc  # type: ignore[arg-type] # of the connection
        try:
            return self._first(addresses)
        finally:
            self._dns_host = name  # what the certificate has to be for

    def _first(self, addresses: list[str]) -> Any:
        """Connect to the first address that takes a connection; raise what the last one raised."""
        for left, address in _counted(addresses):
            self._dns_host = address
            try:
                return super()._new_conn()  # type: ignore[misc] # of the connection
            except (NewConnectionError, ConnectTimeoutError):
                if not left:
                    raise
        raise AssertionError("a name has an address, or is not found")


class PublicConnection(_ToPublic, Connection):
    """A connection to a host at a public address."""


class PublicTlsConnection(_ToPublic, TlsConnection):
    """The same, encrypted."""


def _counted(addresses: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each address behind the number of those that are left after it."""
    return zip(reversed(range(len(addresses))), addresses, strict=True)
