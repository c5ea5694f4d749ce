"""Who asks, and what the caller may do: whoever has a token over TCP, or a user of this host.

The network has two tokens: the API's may do everything; a second one, where it is configured, may
have what is watched brought up to date, so that it can be given to a workflow elsewhere.

Over the daemon's own Unix socket the kernel says whose process is on the other end (unix(7),
SO_PEERCRED), and no token is wanted.  Any other Unix socket that systemd may hand over has a
reverse proxy behind it, which speaks for strangers: there the token counts, as over TCP.

In a user namespace (PrivateUsers= of the unit) the kernel shows everybody but root, the service's
own user and its own group as nobody, so nobody is never taken for somebody.
"""

from __future__ import annotations

import enum
import grp
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

GROUP = "syncd"
"""The group whose members may look, and have what is watched brought up to date."""

_PEERGROUPS = 59  # SO_PEERGROUPS of asm-generic/socket.h, which Python does not name
_GROUPS_MAX = 1024  # bytes that Python takes of an option: 256 groups
_NOBODY = 65534  # /proc/sys/kernel/overflowuid and overflowgid, unless somebody has set them
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Scope(enum.StrEnum):
    """What a caller may do; an operation needs one of them."""

    READ = "read"
    """To look."""
    SYNC = "sync"
    """To have what is watched brought up to date, or compared."""
    CREATE = "create"
    """Everything else: any image, containers, pins, deletions."""


EVERYTHING = frozenset(Scope)
MEMBER = frozenset({Scope.READ, Scope.SYNC})
SYNC_ALONE = frozenset({Scope.SYNC})


@dataclass(frozen=True, slots=True)
class Peer:
    """The process on the other end of a Unix socket, as it was when it connected."""

    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, connected: socket.socket) -> Peer:
        """Ask the kernel; raise OSError when it does not tell.

        Somebody in more than 256 groups counts as being in the first one alone.
        """
        size = _CREDENTIALS.size
        told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, uid, gid = _CREDENTIALS.unpack(told)
        try:
            more = connected.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _GROUPS_MAX)
        except OSError:
            more = b""
        return cls(uid, frozenset({gid, *(each for (each,) in struct.iter_unpack("I", more))}))

    def scopes(self, group: int | None) -> frozenset[Scope]:
        """Return what this peer may do, where `group` is the id of the group that may look."""
        if self.uid == 0 or (self.uid == os.geteuid() and self.uid != _NOBODY):
            return EVERYTHING
        if group is not None and group != _NOBODY and group in self.groups:
            return MEMBER
        return frozenset()


class Callers:
    """Tells callers apart; `own` is the daemon's own socket, `group` the group's id or None."""

    def __init__(self, own: Path, group: int | None) -> None:
        self._own = str(own)
        self._group = group

    def scopes(self, request: web.Request) -> frozenset[Scope] | None:
        """Return what the peer of the daemon's own socket may do, or None for any other socket."""
        transport = request.transport
        if transport is None or transport.get_extra_info("sockname") != self._own:
            return None
        try:
            return Peer.of(transport.get_extra_info("socket")).scopes(self._group)
        except OSError:  # the peer is gone
            return frozenset()


CALLERS = web.AppKey("callers", Callers)
"""Where an application keeps who its callers are."""


SCOPES = web.RequestKey("scopes", frozenset[Scope])
"""Where a request below `/api` keeps what its caller may do, once it is admitted."""


def may_any_image(request: web.Request) -> bool:
    """Tell whether an admitted caller may have images brought that are not watched."""
    return Scope.CREATE in request[SCOPES]


def required(request: web.Request) -> Scope:
    """Return what an operation below `/api` needs; one that is not named here needs most."""
    if request.method in ("GET", "HEAD"):
        return Scope.READ
    return Scope.SYNC if request.path in ("/api/v1/sync", "/api/v1/verify") else Scope.CREATE


def members_group() -> int | None:
    """Return the id of the group whose members may look, or None where there is none."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None
