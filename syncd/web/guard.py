"""What stands before every handler: who may ask, and how errors are answered.

Every request below `/api` needs a bearer token, or comes from a user of this host who may ask
(`syncd.web.callers`), and every error there is answered as JSON.  What needs no token is for this
server's own names alone, and for a few readers at a time.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from syncd.errors import (
    AddressRefusedError,
    ConfigError,
    ImageError,
    InvalidReferenceError,
    NotFoundError,
    PublishError,
    RequestError,
    ReusedKeyError,
    StillRunningError,
    SyncdError,
    UnpublishedError,
)
from syncd.web.attempts import Attempts
from syncd.web.backend import Backend, HttpLimits
from syncd.web.callers import CALLER, CALLERS, GROUP, Caller
from syncd.web.clients import counted_as
from syncd.web.connections import CODED, coded, is_gone, taken, unmet
from syncd.web.hosts import is_meant
from syncd.web.refusals import busy, http_refusal, refusal
from syncd.web.scopes import EVERYTHING, TO_CREATE, TO_READ, TO_SYNC, Scope, required

log = structlog.stdlib.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_WRONG = "the bearer token is missing or wrong"
_FOR_ROOT = "over the Unix socket this is for root and the service's own user"
_FOR_MEMBERS = f"over the Unix socket this is for root and the members of the group {GROUP}"
_READ_BY_ALL = ("/", "/metrics")
_AGAIN = 2  # seconds until a reader may come again
# A delivery is known by its signature and comes by whatever name a proxy has; probes name any host,
# and are told nothing but that the process is there.
_FOR_ANY_HOST = ("/webhooks/", "/healthz", "/readyz")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="syncd"'}


class Guard:
    """The middleware of the application."""

    def __init__(self, backend: Backend, limits: HttpLimits) -> None:
        self._backend = backend
        self._limits = limits
        self._attempts = Attempts()
        self._readers = 0

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only a token's holder below `/api`, and answer every error there as JSON."""
        below_api = request.path == "/api" or request.path.startswith("/api/")
        try:
            refused = self._refused(request, below_api=below_api)
            if refused is not None:
                return refused
            if request.path in _READ_BY_ALL:
                return await self._read(request, handler)
            return await handler(request)
        except (InvalidReferenceError, RequestError) as exc:
            return refusal(400, str(exc))
        except ReusedKeyError as exc:
            return refusal(422, str(exc))
        except AddressRefusedError as exc:
            return refusal(403, str(exc))
        except (NotFoundError, UnpublishedError) as exc:
            return refusal(404, str(exc))
        except StillRunningError as exc:
            return refusal(504, str(exc))
        except ConfigError as exc:
            log.error("request not answered", path=request.path, error=str(exc))
            return refusal(503, "syncd's configuration is at fault; its log says how")
        except SyncdError as exc:
            upstream = 502 if isinstance(exc, PublishError | ImageError) else 500
            return refusal(503 if exc.temporary else upstream, str(exc))
        except web.HTTPError as exc:
            if not below_api:
                raise
            return http_refusal(request, exc)
        except Exception as exc:
            if not below_api or (isinstance(exc, ConnectionError) and is_gone(request)):
                raise  # to `Connection.handle_error`: nobody is there to be answered
            log.exception("request not answered", path=request.path)
            return refusal(500, "syncd has a fault; its log says which")

    def _refused(self, request: web.Request, *, below_api: bool) -> web.Response | None:
        """Return the answer to a request that reaches no handler, or None."""
        if unmet(request):
            return refusal(417, "nothing but Expect: 100-continue can be expected here")
        of_user = request.app[CALLERS].scopes(request)
        scopes = self._of_stranger(request, below_api) if of_user is None else of_user
        if isinstance(scopes, web.Response) or not below_api:
            return scopes if isinstance(scopes, web.Response) else None
        needed = required(request)
        if needed in scopes:
            request[CALLER] = Caller(scopes, is_local=of_user is not None)
            return refusal(415, CODED) if coded(request) else None
        if of_user is None:
            return _beyond(scopes, needed)
        return refusal(403, _FOR_MEMBERS if needed in TO_SYNC else _FOR_ROOT)

    def _of_stranger(
        self, request: web.Request, below_api: bool
    ) -> frozenset[Scope] | web.Response:
        """Return what a request over the network may do, or the answer to one that may not ask."""
        server = self._backend.live.config.server
        if not request.path.startswith(_FOR_ANY_HOST) and not is_meant(
            request, server.names, server.listen
        ):
            return refusal(421, "this is no name of this server; set server.names to its names")
        if not below_api:
            return frozenset()
        known = (
            (server.api_token(), EVERYTHING),
            (server.create_token(), TO_CREATE),
            (server.sync_token(), TO_SYNC),
            (server.read_token(), TO_READ),
        )
        if all(token is None for token, _ in known):
            return refusal(503, "no API token is configured; set server.api_token_file")
        # A header may hold any bytes; they come as surrogates (PEP 383).
        header = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not header:
            return refusal(401, _WRONG, _CHALLENGE)
        scopes = frozenset[Scope]()

        def is_right() -> bool:
            nonlocal scopes
            for token, granted in known:  # each is compared, whichever is right
                if token and hmac.compare_digest(header, f"Bearer {token}".encode()):
                    scopes |= granted
            return bool(scopes)

        wait = self._attempts.refused(counted_as(request, self._backend), is_right)
        if wait:
            return busy("too many wrong bearer tokens came from this address", math.ceil(wait), 429)
        return scopes if wait is None else refusal(401, _WRONG, _CHALLENGE)

    async def _read(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what everybody may read, to a few readers at a time, until they have it."""
        if self._readers >= self._limits.readers:
            return busy("too many read this now", _AGAIN)
        self._readers += 1
        try:
            response = await handler(request)
            async with taken(request, self._limits.answer):
                await response.prepare(request)
                await response.write_eof()
            return response
        finally:
            self._readers -= 1


def _beyond(scopes: frozenset[Scope], needed: Scope) -> web.Response:
    """Return the answer to a token that may not do this (RFC 6750, 3.1)."""
    may = ", ".join(scope for scope in Scope if scope in scopes)
    challenge = f'Bearer realm="syncd", error="insufficient_scope", scope="{needed}"'
    return refusal(
        403,
        f"this needs the scope {needed}, and this token has {may} alone; "
        "the token of server.api_token_file has every scope",
        {"WWW-Authenticate": challenge},
    )
