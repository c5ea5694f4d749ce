"""Scopes: what a caller may do, and which of them each operation below `/api` needs, as one table.

The guard asks the table for every request, and the API's description shows it.  What the table does
not name needs most, so that a forgotten row closes a path and never opens one.
"""

from __future__ import annotations

import enum

from aiohttp import web


class Scope(enum.StrEnum):
    """What a caller may do; an operation needs one of them."""

    READ = "read"
    """To look."""
    SYNC = "sync"
    """To have what is watched brought up to date, or compared."""
    CREATE = "create"
    """To make and replace containers, of what is watched and of what `server.on_demand` allows."""
    UPKEEP = "upkeep"
    """To pin and delete templates."""


EVERYTHING = frozenset(Scope)
TO_READ = frozenset({Scope.READ})
TO_SYNC = TO_READ | {Scope.SYNC}
TO_CREATE = TO_SYNC | {Scope.CREATE}

TABLE: dict[Scope, tuple[tuple[str, str], ...]] = {
    Scope.READ: (
        ("GET", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/{id}"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/images"),
        ("GET", "/api/v1/resolve"),  # SYNC where it pulls
        ("POST", "/api/v1/resolve"),  # the same
        ("GET", "/api/v1/containers"),
        ("GET", "/api/v1/daemon"),
        ("GET", "/api/v1/check"),
        ("GET", "/api/v1/openapi.json"),
    ),
    Scope.SYNC: (
        ("POST", "/api/v1/sync"),
        ("POST", "/api/v1/verify"),
        ("POST", "/api/v1/jobs/{id}/retry"),
    ),
    Scope.CREATE: (
        ("POST", "/api/v1/containers"),
        ("POST", "/api/v1/containers/replace"),
        ("POST", "/api/v1/containers/{vmid}/replace"),
        ("POST", "/api/v1/jobs/{id}/cancel"),
    ),
    Scope.UPKEEP: (
        ("POST", "/api/v1/pin"),
        ("POST", "/api/v1/prune"),
    ),
}
"""The operations by the scope that each needs; HEAD is asked where GET is."""

_NEEDED = {operation: scope for scope, rows in TABLE.items() for operation in rows}


def needed(method: str, path: str) -> Scope:
    """Return what an operation needs; `path` has its parameters' names in braces."""
    return _NEEDED.get((method.upper(), path), Scope.UPKEEP)


def required(request: web.Request) -> Scope:
    """Return what a request below `/api` needs; to learn that a path is none needs the least."""
    method = "GET" if request.method == "HEAD" else request.method
    resource = request.match_info.route.resource
    if resource is None:
        return Scope.READ if method == "GET" else Scope.UPKEEP
    return needed(method, resource.canonical)
