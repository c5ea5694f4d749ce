"""Who asks, and what the caller may do: whoever has a token over TCP, or a user of this host.

The network has tokens: the API's may do everything; each of the others has a scope of its own, and
is given to whoever needs no more, such as a workflow elsewhere (`syncd.web.scopes`).

Over the daemon's own Unix socket the kernel says whose process is on the other end (unix(7),
SO_PEERCRED), and no token is wanted.  Any other Unix socket that systemd may hand over has a
reverse proxy behind it, which speaks for strangers: there the token counts, as over TCP.

In a user namespace (PrivateUsers= of the unit) the kernel shows everybody but root, the service's
own user and its own group as nobody, so nobody is never taken for somebody.
"""

from __future__ import annotations

import grp
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from syncd.config import Config
from syncd.oci import CallerLogin, Reference
from syncd.sync import Template
from syncd.web.scopes import EVERYTHING, TO_SYNC, Scope

GROUP = "syncd"
"""The group whose members may look, and have what is watched brought up to date."""

_PEERGROUPS = 59  # SO_PEERGROUPS of asm-generic/socket.h, which Python does not name
_GROUPS_MAX = 1024  # bytes that Python takes of an option: 256 groups
_NOBODY = 65534  # /proc/sys/kernel/overflowuid and overflowgid, unless somebody has set them
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


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
            return TO_SYNC
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


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request that is admitted.

    `is_local` says that the kernel told who it is, over the daemon's own socket.
    """

    scopes: frozenset[Scope]
    is_local: bool

    def need(self, scope: Scope, purpose: str) -> None:
        """Raise HTTPForbidden where the caller lacks a scope that this purpose needs."""
        if scope not in self.scopes:
            who = "type it as root" if self.is_local else "the API token has it"
            raise web.HTTPForbidden(reason=f"{purpose} needs the scope {scope}; {who}")

    def permit(self, config: Config, reference: Reference) -> None:
        """Raise HTTPForbidden where the caller may not have a registry asked for a reference.

        What is watched may be asked for.  Anything else needs the scope create and, over the
        network, a pattern that allows it: a host must not be made to fetch from anywhere.
        """
        if _is_watched(config, reference):
            return
        self.need(Scope.CREATE, f"{reference}, which is not watched,")
        if not self.is_local and not config.server.allows(reference):
            raise web.HTTPForbidden(
                reason=f"{reference} is not watched, and no pattern of server.on_demand allows it"
            )

    def may_know(self, config: Config) -> Callable[[Template], bool]:
        """Return whether the caller may be told of a published template without asking for it.

        What another caller's login brought is told to whoever may do everything, unless it is
        watched: then this host's own login brings it, too.
        """
        everything = Scope.UPKEEP in self.scopes

        def may(template: Template) -> bool:
            return everything or not template.private or _is_watched(config, template.reference)

        return may

    def login(self, config: Config, reference: Reference) -> CallerLogin | None:
        """Return what opens a reference for a caller who gives nothing; None is this host's login.

        This host's own login is for what is watched, and for root.  Anybody else is asked for
        anonymously, so that nobody gets what only this host may have.
        """
        if self.is_local or _is_watched(config, reference):
            return None
        return CallerLogin()


def _is_watched(config: Config, reference: Reference) -> bool:
    """Tell whether a reference is one that syncd brings by itself.

    A digest may name anything that the repository has, whatever tag stands before it.
    """
    return reference.digest is None and config.watching(reference) is not None


CALLER = web.RequestKey("caller", Caller)
"""Where a request below `/api` keeps who its caller is, once it is admitted."""


def members_group() -> int | None:
    """Return the id of the group whose members may look, or None where there is none."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None
