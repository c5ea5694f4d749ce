"""The HTTP session with one registry: its trust, its time-outs, and which redirects it follows.

Every wait has a bound, nothing of ~/.netrc and no cookie is sent, credentials stay with the host
that they are for, and what began encrypted stays encrypted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import oras.provider
import requests
import requests.adapters

from syncd import __version__
from syncd.errors import RegistryError
from syncd.oci.access import RegistryAccess
from syncd.oci.backoff import ATTEMPTS
from syncd.oci.registry.auth import Answering, Login, trust
from syncd.oci.registry.connections import Connections
from syncd.oci.registry.deadline import time_left
from syncd.oci.traffic import Traffic, Unwatched

_SHORTEST = 0.001  # seconds of a time-out: 0 would mean not to wait at all


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a registry, its token service or its blob store may be silent, in seconds.

    `connect` bounds the wait for a connection and, once more, for the TLS handshake; `read`
    bounds each wait for the next bytes of an answer, headers or body.  `look` bounds a look as a
    whole, with its token and all its `attempts`: a tag, a document, a list of tags, or the headers
    of a blob.  A blob's bytes have to come at `slowest` bytes a second at least; 0 is no bound.
    """

    connect: float = 10.0
    read: float = 60.0
    look: float = 120.0
    slowest: int = 16 << 10
    attempts: int = ATTEMPTS


@contextmanager
def client(
    host: str, access: RegistryAccess, login: Login, timeouts: Timeouts, traffic: Traffic
) -> Iterator[Any]:
    """Lend an oras client for one request: it holds what that needs, so each has its own.

    `traffic` hears of the request, and of what it leads to: a token's, and redirected ones.
    """
    try:
        lent = login.idle.pop()
    except IndexError:
        lent = _client(host, access, login)
    lent.session.timeouts, lent.session.told.traffic = timeouts, traffic
    try:
        yield lent
    finally:
        login.idle.append(lent)


def _client(host: str, access: RegistryAccess, login: Login) -> Any:
    made = oras.provider.Registry(
        hostname=host, insecure=access.plain_http, tls_verify=trust(access)
    )
    made.session = _Session(login.connections, public=login.public)
    made.auth = Answering(login, made.session)
    return made


class _Session(requests.Session):
    """A session that never sends what ~/.netrc says, redirected or not, and keeps no cookies.

    Every wait is bounded by `timeouts`: oras and requests themselves wait for ever.
    """

    def __init__(self, connections: Connections, *, public: bool) -> None:
        super().__init__()
        self.timeouts = Timeouts()
        self.headers["User-Agent"] = f"syncd/{__version__}"
        # Without an auth of its own, requests would look into ~/.netrc and overwrite ours.
        self.auth = lambda request: request
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._connections = connections
        self.told = _Told(connections.adapter(public=public))
        self.mount("https://", self.told)
        self.mount("http://", self.told)

    def send(self, request: Any, **kwargs: Any) -> requests.Response:
        """Send a request, redirected or not, within the time-outs."""
        connect = min(self.timeouts.connect, max(time_left(), _SHORTEST))
        kwargs["timeout"] = (connect, self.timeouts.read)
        return super().send(request, **kwargs)

    def merge_environment_settings(  # type: ignore[override] # its types vary by release
        self,
        url: str,
        proxies: Any,  # noqa: ARG002 - neither is given by anybody here
        stream: Any,
        verify: Any,
        cert: Any,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return the settings of a request, with what the environment says of its host."""
        return self._connections.surroundings(self, url, verify) | {"stream": stream}

    def rebuild_auth(self, prepared_request: Any, response: requests.Response) -> None:
        """Drop the credentials where a redirect leads to another host.

        Raise RegistryError where it leads from HTTPS to HTTP: what is asked for, and a tag's
        meaning, could be changed on the way.
        """
        before, after = urlsplit(response.url), urlsplit(prepared_request.url)
        if before.scheme == "https" and after.scheme != "https":
            raise RegistryError(
                f"{before.hostname} redirects from HTTPS to {after.scheme}://{after.hostname}, "
                "which is not encrypted",
                "mend the registry's own idea of its address (X-Forwarded-Proto of the proxy)",
            )
        headers = prepared_request.headers
        if "Authorization" in headers and self.should_strip_auth(  # type: ignore[no-untyped-call] # it has no types
            response.request.url, prepared_request.url
        ):
            del headers["Authorization"]


class _Told(requests.adapters.BaseAdapter):
    """Sends by the adapter that all sessions share, and tells of each request."""

    def __init__(self, adapter: requests.adapters.BaseAdapter) -> None:
        super().__init__()
        self.traffic: Traffic = Unwatched()
        self._adapter = adapter

    def send(self, request: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override] # what it takes varies by release
        begun, code = time.monotonic(), None
        try:
            answer = self._adapter.send(request, **kwargs)
            code = answer.status_code
        finally:
            self.traffic.answered(code, time.monotonic() - begun)
        return answer

    def close(self) -> None:
        """Leave the shared connections open."""
