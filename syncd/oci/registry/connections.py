"""The connections of a process to registries and to their stores, kept alive for whoever asks next.

A sweep looks at hundreds of tags of one host: a handshake for each would cost the host and us more
than the look.  A connection that lay idle for long is never used again, since a firewall on the way
may have forgotten it and say nothing.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
from requests.utils import select_proxy
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from syncd.oci.registry.addresses import (
    PublicConnection,
    PublicTlsConnection,
    public_addresses,
)
from syncd.oci.registry.deadline import Connection, TlsConnection

_IDLE_MAX = 30.0  # seconds; routers forget a silent connection after minutes (RFC 5382, REQ-5)
_HOSTS_MAX = 32
_KEPT_PER_HOST = 8


class Connections:
    """What the sessions of a process share.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._anywhere = _KeptAlive(pool_connections=_HOSTS_MAX, pool_maxsize=_KEPT_PER_HOST)
        self._public = _Public(pool_connections=_HOSTS_MAX, pool_maxsize=_KEPT_PER_HOST)
        self._surroundings: dict[tuple[object, ...], dict[str, Any]] = {}

    def adapter(self, *, public: bool) -> requests.adapters.HTTPAdapter:
        """Return what sends: to hosts at public addresses alone, or to any.

        Neither ever uses a connection of the other.
        """
        return self._public if public else self._anywhere

    def surroundings(self, session: requests.Session, url: str, verify: Any) -> dict[str, Any]:
        """Return what the environment says of a URL's host: its proxy, whom to trust.

        requests reads the whole environment twice for each request, which takes longer than all
        else of it; a process's environment does not change.
        """
        key = (*urlsplit(url)[:2], verify)
        found = self._surroundings.get(key)
        if found is None:
            merge = requests.Session.merge_environment_settings
            found = dict(merge(session, url, {}, None, verify, None))
            if len(self._surroundings) >= _HOSTS_MAX:
                self._surroundings.clear()
            self._surroundings[key] = found
        return found | {"proxies": dict(found["proxies"])}


class _Fresh:
    """Of a pool: a connection that lay idle for too long is opened anew."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc] # of the pool
        if time.monotonic() > getattr(connection, "idle_since", time.monotonic()) + _IDLE_MAX:
            connection.close()
        return connection

    def _put_conn(self, connection: Any) -> None:
        if connection is not None:
            connection.idle_since = time.monotonic()
        super()._put_conn(connection)  # type: ignore[misc] # of the pool


class _Pool(_Fresh, HTTPConnectionPool):
    ConnectionCls = Connection


class _TlsPool(_Fresh, HTTPSConnectionPool):
    ConnectionCls = TlsConnection


class _PublicPool(_Pool):
    ConnectionCls = PublicConnection


class _PublicTlsPool(_TlsPool):
    ConnectionCls = PublicTlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}
_PUBLIC_POOLS = {"http": _PublicPool, "https": _PublicTlsPool}


class _KeptAlive(requests.adapters.HTTPAdapter):
    """Opens connections that keep the deadlines of a look."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Public(_KeptAlive):
    """The same, to hosts at public addresses alone.

    A proxy of the environment may be anywhere, and looks names up by itself: a name is checked as
    this host knows it, and one that this host does not know is the proxy's to judge.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _PUBLIC_POOLS

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        if select_proxy(request.url, kwargs.get("proxies")):
            parts = urlsplit(request.url)
            with suppress(OSError):
                public_addresses(parts.hostname or "", parts.port or 0)
        return super().send(request, *args, **kwargs)
