"""How a registry's challenges are answered: its credentials, and the token at hand.

Answers both kinds of challenge, Basic and Bearer, and reads the credentials from their file for
each, so that a rotated token needs no restart.  Never answers anybody but the registry itself, and
never sends credentials where TLS does not protect them, unless the registry is configured so.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import time
from collections import deque
from typing import Any

import oras.auth.token
import requests

from syncd.errors import DeniedError, NotFoundError, RegistryError, RegistryUnavailableError
from syncd.oci.access import RegistryAccess
from syncd.oci.caller import CallerAccess
from syncd.oci.registry.challenge import Challenge, choose, parse
from syncd.oci.registry.connections import Connections
from syncd.oci.registry.errors import page_title, redacted, refusal, was_redirected
from syncd.oci.registry.patience import Patience

_REPLY_MAX = 1 << 20
_SECRETS_KEPT = 64
_LOGINS_MAX = 1000
_IDLE_CLIENTS = 8
_CALLERS_HINT = "check the name, and send credentials along that may read it"
_SENDABLE = re.compile(r"[\x21-\x7e]+")


class Login:
    """What opens one repository of a registry: one token or login for all threads that ask it.

    A token is kept until the registry refuses it, or until the time its service gave it is over.
    Safe to use from several threads: while one fetches a token, the others wait for it.  `idle`
    are the clients of this login that no request uses now, over `connections`; `public` says that
    they reach hosts at public addresses alone.  Up to `one_by_one_until`, a time of
    `time.monotonic()`, one range of a blob is asked for at a time.
    """

    def __init__(
        self,
        access: RegistryAccess,
        host: str,
        repository: str,
        patience: Patience,
        connections: Connections,
        *,
        public: bool = False,
    ) -> None:
        self.connections = connections
        self.public = public
        self.idle: deque[Any] = deque(maxlen=_IDLE_CLIENTS)
        self._access = access
        self.host = host
        self.one_by_one_until = 0.0
        self._patience = patience
        self._scope = f"repository:{repository}:pull"
        self._lock = threading.Lock()
        self._header: str | None = None
        self._until = math.inf
        self._challenge: Challenge | None = None
        self._secrets: deque[str] = deque(maxlen=_SECRETS_KEPT)
        if isinstance(access, CallerAccess):
            if credentials := access.credentials():
                self._remembered(_basic(credentials))
            if access.login.token:
                self._header = self._remembered(f"Bearer {access.login.token}")

    def header(self) -> str | None:
        """Return the Authorization header to send, or None while there is none."""
        return self._header if time.monotonic() < self._until else None

    def redacted(self, text: str) -> str:
        """Return words of a registry without the secrets that it was sent."""
        return redacted(text, self._secrets)

    def fault(self, answer: requests.Response, subject: str) -> RegistryError:
        """Return the error of a refusal, and let go of its connection.

        A wait that the registry or its token service asks for is kept by all that ask it.
        """
        has = "the credentials are not accepted" if self._access.username else "no credentials"
        with answer:
            fault = refusal(answer, self.host, subject, has, self._secrets)
        if isinstance(fault, RegistryUnavailableError) and not was_redirected(answer):
            self._patience.note(self.host, fault.retry_after)
        if isinstance(self._access, CallerAccess) and type(fault) in (NotFoundError, DeniedError):
            return type(fault)(fault.what, _CALLERS_HINT)
        return fault

    def wait_left(self) -> float:
        """Return the seconds for which the registry asked to be left alone."""
        return self._patience.left(self.host)

    def answer(
        self, challenge: Challenge | None, refused: str | None, session: requests.Session
    ) -> str | None:
        """Return another header than the refused one, or None if there is no other.

        Without a challenge the last one is answered again: some registries refuse a token that is
        over by 403, and do not say what they want (GHCR).  Raise RegistryError.
        """
        with self._lock:
            if self._header != refused and self.header() is not None:
                return self._header
            self._header, self._until = None, math.inf
            self._challenge = challenge or (self._challenge if refused else None)
            if self._challenge is None:
                return None
            credentials = self._access.credentials()
            header = self._remembered(_basic(credentials)) if credentials else None
            if self._challenge.scheme == "bearer":
                header = self._token(self._challenge, header, session)
            self._header = None if header == refused else header
            return self._header

    def _token(
        self, challenge: Challenge, login: str | None, session: requests.Session
    ) -> str | None:
        """Exchange the credentials, or none, for a bearer token; return its header."""
        realm = challenge.get("realm")
        if not challenge.names_service:
            raise RegistryError(f"registry {self.host} names no token service to log in to")
        if realm.lower().startswith("http://") and not self._access.plain_http:
            raise RegistryError(
                f"registry {self.host} wants the credentials sent unencrypted to "
                f"{self.redacted(realm)}",
                "if that is meant to be, set plain_http = true for it",
            )
        asked = {"service": challenge.get("service"), "scope": challenge.get("scope")}
        headers = {"Authorization": login} if login else {}
        # Other clients ask for what they want, too, where a challenge names no scope
        # (https://github.com/containers/image/blob/main/docker/docker_client.go).
        asked["scope"] = asked["scope"] or self._scope
        with session.get(
            realm,
            params={name: value for name, value in asked.items() if value},
            headers=headers,
            verify=trust(self._access),
            stream=True,
        ) as answer:
            if not answer.ok:
                fault = self.fault(answer, "a token")
                if fault.temporary:
                    raise fault
                return None
            found = self._reply(answer)
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str) or not token:
            return None
        self._remembered(token)
        if not _SENDABLE.fullmatch(token):
            raise RegistryError(
                f"the token service of {self.host} answers a token that no header can carry"
            )
        lasts = found.get("expires_in")
        if isinstance(lasts, int | float) and lasts > 0:
            self._until = time.monotonic() + lasts
        return self._remembered(f"Bearer {token}")

    def _reply(self, answer: requests.Response) -> dict[str, Any]:
        content = answer.raw.read(_REPLY_MAX + 1, decode_content=True)
        if (title := page_title(content)) is not None:
            raise RegistryError(
                f"the token service of {self.host} answers no JSON but a web page "
                f"({self.redacted(title)[:200]})"
            )
        try:
            found = json.loads(content) if len(content) <= _REPLY_MAX else None
        except (ValueError, RecursionError) as exc:
            raise RegistryError(f"the token service of {self.host} answers no JSON") from exc
        if found is None:
            raise RegistryError(
                f"the token service of {self.host} answers more than {_REPLY_MAX} bytes"
            )
        return found if isinstance(found, dict) else {}

    def _remembered(self, secret: str) -> str:
        """Return a secret that is to be struck from the registry's words from now on."""
        words = [secret, secret.partition(" ")[2]]
        if secret.startswith("Basic "):
            login = base64.b64decode(words[1]).decode()
            words += [login, login.partition(":")[2]]
        self._secrets.extend(word for word in words if word not in self._secrets)
        return secret


class Logins:
    """The logins of a process: one for each repository, so that its token serves all who ask.

    What a registry asks of one of them, to be left alone for a while, all of them keep.  Safe to
    use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._patience = Patience()
        self._connections = Connections()
        self._kept: dict[tuple[str, str], tuple[RegistryAccess, Login]] = {}

    def of(
        self, access: RegistryAccess, host: str, repository: str, *, public: bool = False
    ) -> Login:
        """Return the login of a repository: a new one where the access is another than before.

        A caller's login is never kept, shares no token, and no wait that its registry asks for.
        """
        if isinstance(access, CallerAccess):
            alone = Patience()
            return Login(access, host, repository, alone, self._connections, public=public)
        with self._lock:
            before, login = self._kept.pop((host, repository), (None, None))
            if login is None or before != access or login.public != public:
                patience, connections = self._patience, self._connections
                login = Login(access, host, repository, patience, connections, public=public)
            self._kept[host, repository] = access, login
            if len(self._kept) > _LOGINS_MAX:
                del self._kept[next(iter(self._kept))]
            return login


class Answering(oras.auth.token.TokenAuth):  # type: ignore[misc] # oras has no types
    """What oras asks in one request when it is challenged: answers by the `Login` of all."""

    def __init__(self, login: Login, session: requests.Session) -> None:
        super().__init__()
        self._login = login
        self._session = session
        self._subject = ""
        self._answered = False

    def begin(self, subject: str) -> None:
        """Begin a request for `subject`, with the token at hand."""
        self.token = self._login.header()
        self._subject = subject
        self._answered = False

    def get_auth_header(self) -> dict[str, str]:
        """Return the header of the token at hand."""
        return {"Authorization": self.token} if self.token else {}

    def authenticate_request(
        self,
        original: requests.Response,
        headers: dict[str, str],
        refresh: bool = False,  # noqa: ARG002 - every challenge is answered afresh
    ) -> tuple[dict[str, str], bool]:
        """Answer the challenge in `original`: return the headers for another attempt.

        Raise the refusal where there is nothing to answer, or where a host that the registry
        redirected to asks: the registry's credentials are none of its business.
        """
        fault = self._login.fault(original, self._subject)
        if fault.temporary or self._answered or was_redirected(original):
            raise fault
        challenge = choose(parse(original.raw.headers.getlist("WWW-Authenticate")))
        header = self._login.answer(challenge, self.token, self._session)
        if header is None:
            raise fault
        self._answered = True
        self.token = header
        return headers | self.get_auth_header(), True


def trust(access: RegistryAccess) -> bool | str:
    """Return what requests takes for `verify`: the file of the authorities, or True."""
    return str(access.ca_file) if access.ca_file else True


def _basic(credentials: tuple[str, str]) -> str:
    """Return the header of a login (RFC 7617, section 2, in UTF-8 as section 2.1 has it)."""
    return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
