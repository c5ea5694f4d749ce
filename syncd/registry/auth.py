"""The oras client of one registry: its credentials, its trust and its time-outs.

Answers both kinds of challenge, Basic and Bearer, and reads the credentials from their file for
each, so that a rotated token needs no restart.  Never sends them where TLS does not protect
them, unless the registry is configured so.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import json
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import oras.auth.token
import oras.auth.utils
import oras.provider
import requests
import requests.adapters

from syncd import __version__
from syncd.errors import RegistryError
from syncd.registry.refusals import Passing, refusal
from syncd.settings import RegistrySettings

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0
_REPLY_MAX = 1 << 20


def client(host: str, settings: RegistrySettings) -> Any:
    """Return an oras client; it holds a token, so each thread needs its own."""
    made = oras.provider.Registry(
        hostname=host, insecure=settings.plain_http, tls_verify=_trust(settings)
    )
    made.session = _Session()
    made.session.headers["User-Agent"] = f"syncd/{__version__}"
    made.session.mount("https://", _Patience())
    made.session.mount("http://", _Patience())
    made.auth = _Credentials(settings, host, made.session)
    return made


class _Session(requests.Session):
    """A session that never sends what ~/.netrc says, redirected or not, and keeps no cookies."""

    def __init__(self) -> None:
        super().__init__()
        # Without an auth of its own, requests would look into ~/.netrc and overwrite ours.
        self.auth = lambda request: request
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def rebuild_auth(self, prepared_request: Any, response: requests.Response) -> None:
        """Drop the credentials where a redirect leads to another host."""
        headers = prepared_request.headers
        if "Authorization" in headers and self.should_strip_auth(  # type: ignore[no-untyped-call] # it has no types
            response.request.url, prepared_request.url
        ):
            del headers["Authorization"]


class _Patience(requests.adapters.HTTPAdapter):
    """Bounds every wait: oras and requests themselves wait for ever."""

    def send(self, request: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override] # what it takes varies by release
        kwargs["timeout"] = (CONNECT_TIMEOUT, READ_TIMEOUT)
        return super().send(request, **kwargs)


class _Credentials(oras.auth.token.TokenAuth):  # type: ignore[misc] # oras has no types
    """Answers challenges of both schemes, reading the credentials anew for each."""

    def __init__(self, settings: RegistrySettings, host: str, session: requests.Session) -> None:
        super().__init__()
        self.session = session
        self._settings = settings
        self._host = host
        self._scheme = "Bearer"

    def get_auth_header(self) -> dict[str, str]:
        """Return the header of the token at hand."""
        return {"Authorization": f"{self._scheme} {self.token}"}

    def authenticate_request(
        self,
        original: requests.Response,
        headers: dict[str, str],
        refresh: bool = False,  # noqa: ARG002 - every challenge is answered afresh
    ) -> tuple[dict[str, str], bool]:
        """Answer the challenge in `original`; return the headers and whether to try again."""
        challenge = original.headers.get("WWW-Authenticate", "")
        fault, least = refusal(original, self._host, urlsplit(original.url).path)
        original.close()
        if fault.temporary:
            raise Passing(fault, least)
        self.token = None
        scheme = challenge.partition(" ")[0].lower()
        if scheme == "bearer":
            self._scheme, self.token = "Bearer", self._token(challenge)
        elif scheme == "basic" and (credentials := self._settings.credentials()):
            self._scheme, self.token = "Basic", oras.auth.utils.get_basic_auth(*credentials)
        if self.token is None:
            return headers, False
        return headers | self.get_auth_header(), True

    def _token(self, challenge: str) -> str | None:
        """Exchange the credentials, or none, for a bearer token."""
        asked = oras.auth.utils.parse_auth_header(challenge)
        if not asked.realm or not asked.realm.startswith(("https://", "http://")):
            raise RegistryError(f"registry {self._host} names no token service to log in to")
        if asked.realm.startswith("http://") and not self._settings.plain_http:
            raise RegistryError(
                f"registry {self._host} wants the credentials sent unencrypted to {asked.realm}",
                "if that is meant to be, set plain_http = true for it",
            )
        params = {k: v for k in ("service", "scope") if (v := getattr(asked, k))}
        answer = self.session.get(
            asked.realm,
            params=params,
            auth=self._settings.credentials(),
            verify=_trust(self._settings),
            stream=True,
        )
        with answer:
            if not answer.ok:
                fault, least = refusal(answer, self._host, "a token")
                if fault.temporary:
                    raise Passing(fault, least)
                return None
            found = self._reply(answer)
        token = found.get("token") or found.get("access_token")
        return token if isinstance(token, str) else None

    def _reply(self, answer: requests.Response) -> dict[str, Any]:
        content = answer.raw.read(_REPLY_MAX + 1, decode_content=True)
        try:
            found = json.loads(content) if len(content) <= _REPLY_MAX else None
        except (ValueError, RecursionError) as exc:
            raise RegistryError(f"the token service of {self._host} answers no JSON") from exc
        if found is None:
            raise RegistryError(
                f"the token service of {self._host} answers more than {_REPLY_MAX} bytes"
            )
        return found if isinstance(found, dict) else {}


def _trust(settings: RegistrySettings) -> bool | str:
    return str(settings.ca_file) if settings.ca_file else True
