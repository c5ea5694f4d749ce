"""A token service for docker-registry: passwords exchanged for tokens that it signs.

It is what stands in front of GHCR and Docker Hub, as small as the registry accepts it.  Tokens
are JWTs signed with ES256; the certificate in their header is the registry's `rootcertbundle`.

Sources: https://distribution.github.io/distribution/spec/auth/token/ and, for the claims,
https://distribution.github.io/distribution/spec/auth/jwt/
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.fakes.certificate import Certificate

ISSUER = "syncd e2e"
SERVICE = "e2e.registry"
_LIFETIME = 300


class TokenService:
    """Gives whoever knows a password what the scopes of the request say; nobody else anything.

    Without a `user` it gives anybody the right to pull.  `realm` is its URL, `certificate` the
    file that the registry trusts, `asked` each request's query in order.
    """

    def __init__(self, folder: Path, user: str = "", password: str = "") -> None:
        folder.mkdir(parents=True)
        self.certificate = Certificate.make(folder).file
        self.asked: list[dict[str, list[str]]] = []
        pem = self.certificate.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._chain = x509.load_pem_x509_certificate(pem)
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._login = f"Basic {encoded}" if user else ""
        tokens = self

        class Handler(_Handler):
            service = tokens

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def admits(self, authorization: str) -> bool:
        """Tell whether a request's login is right."""
        return authorization == self._login

    def token(self, service: str, scopes: Iterable[str]) -> str:
        """Sign a token for these scopes, as a service's audience."""
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [self._der()]}
        claims = {
            "iss": ISSUER,
            "sub": "e2e",
            "aud": service,
            "nbf": now - 10,
            "iat": now,
            "exp": now + _LIFETIME,
            "jti": secrets.token_hex(8),
            "access": [_access(scope) for scope in scopes],
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        # RFC 7518, section 3.4: the two numbers side by side, not in DER.
        numbers = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b"".join(number.to_bytes(32, "big") for number in numbers)
        return f"{signed}.{_base64url(signature)}"

    def _der(self) -> str:
        return base64.b64encode(self._chain.public_bytes(serialization.Encoding.DER)).decode()


class _Handler(BaseHTTPRequestHandler):
    service: TokenService

    def log_message(self, *_: object) -> None:
        """Say nothing: `TokenService.asked` has it all."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.service.asked.append(query)
        if not self.service.admits(self.headers.get("Authorization", "")):
            fault = {"code": "UNAUTHORIZED", "message": "wrong password"}
            return self._answer(401, {"errors": [fault]})
        scopes = " ".join(query.get("scope", [])).split()
        token = self.service.token(query.get("service", [""])[0], scopes)
        return self._answer(200, {"token": token})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _access(scope: str) -> dict[str, object]:
    """Return a scope as a claim."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
