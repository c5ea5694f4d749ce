"""Connections to the API over HTTPS, under proxmoxer's own backend.

The certificate of the server is always verified, by a CA or by its fingerprint.  No proxy and no CA
of the environment comes between syncd and the cluster, and no redirect is followed.
"""

from __future__ import annotations

import re
import ssl
from typing import Any

import requests
from proxmoxer import ProxmoxAPI
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from syncd.errors import (
    ConnectionLostError,
    EndpointUnreachableError,
    PublishError,
    UntrustedCertificateError,
)
from syncd.targets.proxmox.access import ClusterAccess

_BLOCK = 256 << 10
_UNTRUSTED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|Fingerprints did not match|doesn't match|certificate verify failed"
)


def connect(access: ClusterAccess, endpoint: str, timeout: float) -> Any:
    """Return a proxmoxer for an endpoint, with the current secret of the token.

    A connection, a block of an upload, or an answer may take `timeout` seconds.
    """
    user, _, token = (access.token_id or "").partition("!")
    verify: bool | str = str(access.ca_file) if access.ca_file else True
    if access.fingerprint:
        verify = False  # no issuer is needed: _Trust verifies the certificate's fingerprint
    api = ProxmoxAPI(
        endpoint.removeprefix("https://"),
        user=user,
        token_name=token,
        token_value=access.token_secret(),
        verify_ssl=verify,
        timeout=timeout,
    )
    session = api._store["session"]  # proxmoxer has no public name for the session
    session.trust_env = False
    session.max_redirects = 0
    session.mount("https://", _Trust(access.fingerprint))
    return api


def unanswered(exc: requests.exceptions.RequestException, endpoint: str, what: str) -> PublishError:
    """Return the error for a request without an answer.

    It tells whether the request was sent, since only that decides whether to send it again.
    """
    text = str(exc)
    if isinstance(exc, requests.exceptions.SSLError) and _UNTRUSTED.search(text):
        return UntrustedCertificateError(
            f"the certificate of {endpoint} is not trusted: {text:.300}",
            "set ca_file (/etc/pve/pve-root-ca.pem of a node) or fingerprint (of "
            "pvenode cert info)",
        )
    cause = getattr(exc.args[0] if exc.args else None, "reason", None)
    if isinstance(exc, requests.exceptions.ConnectTimeout) or isinstance(
        cause, NewConnectionError | ConnectTimeoutError
    ):
        return EndpointUnreachableError(f"{endpoint} cannot be reached: {cause or exc!s:.300}")
    return ConnectionLostError(f"{what}: the connection broke off: {text:.300}")


class _Trust(HTTPAdapter):
    """Verifies the server's certificate by the CA of the session, or by its fingerprint."""

    def __init__(self, fingerprint: str | None) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = create_urllib3_context()
        # The CA that Proxmox VE creates for a cluster names no key usage, which the strict mode of
        # Python 3.13 refuses.  An administrator has configured this CA, and its signatures are
        # still verified.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._fingerprint:
            # urllib3 compares the fingerprint before it sends anything.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        super().init_poolmanager(
            *args,
            **kwargs,
            blocksize=_BLOCK,
            ssl_context=context,
            assert_fingerprint=self._fingerprint,
        )
