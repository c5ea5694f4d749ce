"""GitHub's API on loopback, as far as it tells of webhooks; and GitHub delivering to them.

It refuses what GitHub refuses, in GitHub's words.  Its answers come from

- the operations and their examples in
  https://github.com/github/rest-api-description/blob/main/descriptions/api.github.com/api.github.com.json
  (`repos/list-webhooks`, `repos/list-webhook-deliveries`, `repos/redeliver-webhook-delivery`, the
  same of `orgs`, and `meta/get`), shown at https://docs.github.com/en/rest/repos/webhooks
- https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api for refusals: 404
  for a name that the token may not see, a classic token without the scope too; 403 "Resource not
  accessible" for a fine-grained one; 400 for a version of the API that does not exist; a
  `User-Agent` is needed, and no path ends in a slash
- https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api for limits
- https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api for pages: at
  most 100 entries, however many are asked for, and a `Link` to the next ones
- https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks:
  what is older than three days can neither be seen nor delivered again

What no page says is said as GitHub said it to others: the words of a 415 for a wrong `Accept`, and
the first words of a 401 and of a 403 without a `User-Agent`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

from tests.fakes.certificate import Certificate

KEPT = timedelta(days=3)
DOCS = "https://docs.github.com/rest"
VERSIONS = ("2022-11-28",)

_HOOKS = re.compile(
    r"/(?P<place>orgs/[^/]+|repos/[^/]+/[^/]+)/hooks(?:/(?P<hook>[0-9]+))?(?P<rest>.*)"
)
_ATTEMPTS = re.compile(r"/deliveries/(?P<id>[0-9]+)/attempts")


@dataclass
class GitHubToken:
    """A token: what it may do with the webhooks of which places.

    A classic one has scopes, and is told 404 where they do not suffice; a fine-grained one has
    permissions, and is told 403.
    """

    text: str = "github_pat_11ABCDEFG0123456789"
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    classic: bool = False


@dataclass
class Webhook:
    """A webhook; with a `secret` it signs, and `deliveries` are what it did, the newest first."""

    id: int
    url: str
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    payloads: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)


class GitHub:
    """The API; `url` is where it is.  `requests` are the methods and paths that were asked for."""

    def __init__(self, token: GitHubToken | None = None) -> None:
        self.token = token or GitHubToken()
        self.places: dict[str, list[Webhook]] = {}
        self.hook_networks = ["192.30.252.0/22", "185.199.108.0/22", "2a0a:a440::/29"]
        self.requests: list[tuple[str, str]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        """What is answered instead, one for each request, until none is left."""
        self.drips = False
        """Whether an answer comes a byte at a time, and never ends."""
        self.ends: str | None = None
        """When the token ends, as GitHub tells it with each answer; None for no end."""
        self.delivers = True
        """Whether what is asked for again is delivered."""
        self._ids = iter(range(100_000_000_001, 200_000_000_000))
        github = self

        class Handler(_Handler):
            served = github

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.drips = False
        self._server.shutdown()
        self._server.server_close()

    def encrypt(self, certificate: Certificate) -> None:
        """Speak HTTPS from now on."""
        self._server.socket = certificate.server_context().wrap_socket(
            self._server.socket, server_side=True
        )
        self.url = self.url.replace("http:", "https:")

    def set_up(self, place: str, url: str) -> Webhook:
        """Set a webhook up at `orgs/ORG` or `repos/OWNER/REPOSITORY`, which the token may use."""
        hook = Webhook(501 + sum(map(len, self.places.values())), url)
        self.places.setdefault(place, []).append(hook)
        self.token.reads += (place,)
        self.token.writes += (place,)
        return hook

    def attempted(
        self, hook: Webhook, guid: str, status: str = "OK", code: int = 200, **entry: Any
    ) -> dict[str, Any]:
        """Note that a delivery was attempted just now; the example of `hook-delivery-items`."""
        made: dict[str, Any] = {
            "id": next(self._ids),
            "guid": guid,
            "delivered_at": text_of(datetime.now(UTC)),
            "redelivery": False,
            "duration": 0.28,
            "status": status,
            "status_code": code,
            "event": "package",
            "action": "published",
            "installation_id": None,
            "repository_id": 456,
            "throttled_at": None,
        }
        hook.deliveries.insert(0, made | entry)
        return hook.deliveries[0]

    def failed(self, hook: Webhook, guid: str, **entry: Any) -> dict[str, Any]:
        """Note that a delivery failed, as the example of `hook-delivery-item` did."""
        return self.attempted(hook, guid, "failed to connect", 502, **entry)

    def deliver(self, hook: Webhook, guid: str) -> int:
        """Deliver a payload of `hook.payloads` once more; return the status of the answer."""
        headers, body = hook.payloads[guid]
        try:
            with urlopen(Request(hook.url, body, headers), timeout=10) as answer:
                status: int = answer.status
        except OSError as exc:
            status = getattr(exc, "code", 502)
        self.attempted(
            hook, guid, "OK" if status < 300 else "Invalid HTTP Response", status, redelivery=True
        )
        return status

    @property
    def asked_again(self) -> list[int]:
        """The ids of the attempts that were asked for again, in order."""
        posted = [path for method, path in self.requests if method == "POST"]
        return [int(path.split("/")[-2]) for path in posted]


def text_of(at: datetime) -> str:
    """Return a moment as GitHub writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class _RefusalError(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Handler(BaseHTTPRequestHandler):
    served: GitHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._serve()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        served, parts = self.served, urlsplit(self.path)
        served.requests.append((self.command, parts.path))
        if served.drips:
            return self._drip()
        if served.answers:
            return self._send(*served.answers.pop(0))
        try:
            self._check()
            status, headers, content = self._find(parts.path, parse_qs(parts.query))
        except _RefusalError as refusal:
            body = {"message": refusal.message, "documentation_url": DOCS}
            status, headers = refusal.status, refusal.headers
            content = body | {"status": str(status)}
        return self._send(status, headers, json.dumps(content).encode())

    def _check(self) -> None:
        """Refuse what GitHub refuses of any request."""
        headers = self.headers
        if not headers.get("User-Agent"):
            raise _RefusalError(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a "
                "User-Agent header",
            )
        accept = headers.get("Accept", "*/*")
        if not re.search(r"\*/\*|application/(vnd\.github(\.v3)?\+)?json", accept):
            message = f"Unsupported 'Accept' header: '{accept}'. Must accept 'application/json'."
            raise _RefusalError(415, message)
        version = headers.get("X-GitHub-Api-Version", VERSIONS[0])
        if version not in VERSIONS:
            raise _RefusalError(400, f"{version} is not a supported version")
        shown = headers.get("Authorization")
        if shown is not None and shown not in {
            f"{scheme} {self.served.token.text}" for scheme in ("Bearer", "token")
        }:
            raise _RefusalError(401, "Bad credentials")

    def _find(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], Any]:
        if path == "/meta" and self.command == "GET":
            return 200, {}, {"verifiable_password_authentication": False, "hooks": self._networks}
        if path == "/rate_limit" and self.command == "GET":
            return 200, {}, {"resources": {}, "rate": {"limit": 5000, "remaining": 4999}}
        found = _HOOKS.fullmatch(path)
        if found is None:
            raise _RefusalError(404, "Not Found")
        hooks = self._admitted(found["place"])
        if found["hook"] is None and not found["rest"] and self.command == "GET":
            listed = [_shown(hook) for hook in hooks]
            return self._page(listed, query, "page")
        hook = next((each for each in hooks if str(each.id) == found["hook"]), None)
        if hook is None:
            raise _RefusalError(404, "Not Found")
        oldest = text_of(datetime.now(UTC) - KEPT)
        kept = [each for each in hook.deliveries if each["delivered_at"] > oldest]
        if (self.command, found["rest"]) == ("GET", ""):
            return 200, {}, _shown(hook)
        if (self.command, found["rest"]) == ("GET", "/deliveries"):
            return self._page(kept, query, "cursor")
        asked = _ATTEMPTS.fullmatch(found["rest"])
        if asked is None or self.command != "POST":
            raise _RefusalError(404, "Not Found")
        again = next((each for each in kept if each["id"] == int(asked["id"])), None)
        if again is None:
            raise _RefusalError(404, "Not Found")
        if self.served.delivers and again["guid"] in hook.payloads:
            arguments = (hook, again["guid"])
            threading.Thread(target=self.served.deliver, args=arguments, daemon=True).start()
        return 202, {}, {}

    @property
    def _networks(self) -> list[str]:
        return self.served.hook_networks

    def _admitted(self, place: str) -> list[Webhook]:
        """Return the webhooks of a place; the case of its name does not matter."""
        served, token = self.served, self.served.token
        if self.headers.get("Authorization") is None:
            raise _RefusalError(401, "Requires authentication")
        allowed = token.reads if self.command == "GET" else token.writes
        known = next((name for name in served.places if name.lower() == place.lower()), None)
        if known is None:
            raise _RefusalError(404, "Not Found")
        if known not in allowed:
            if token.classic:
                raise _RefusalError(404, "Not Found", X_OAuth_Scopes="", X_Accepted_OAuth_Scopes="")
            raise _RefusalError(403, "Resource not accessible by personal access token")
        return served.places[known]

    def _page(
        self, entries: list[dict[str, Any]], query: dict[str, list[str]], by: str
    ) -> tuple[int, dict[str, str], list[dict[str, Any]]]:
        """Return a page; a cursor is opaque, and a page has a number."""
        size = min(int(query.get("per_page", ["30"])[0]), 100)
        given = query.get(by, [""])[0].removeprefix("v1_")
        begin = int(given or 0) if by == "cursor" else (int(given or 1) - 1) * size
        headers = {}
        if begin + size < len(entries):
            following = f"v1_{begin + size}" if by == "cursor" else str(begin // size + 2)
            url = f"{self.served.url}{urlsplit(self.path).path}?per_page={size}&{by}={following}"
            headers["Link"] = f'<{url}>; rel="next"'
        return 200, headers, entries[begin : begin + size]

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        limits = {
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": "4999",
            "X-RateLimit-Reset": str(int(time.time()) + 3600),
        }
        if self.served.ends is not None and "Authorization" in self.headers:
            # As `tests/oci/test_github_token.py` has it, with its source.
            limits["GitHub-Authentication-Token-Expiration"] = self.served.ends
        self.send_response(status)
        for name, value in (limits | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        while self.served.drips:
            try:
                self.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.05)


def _shown(hook: Webhook) -> dict[str, Any]:
    """Return a webhook as the example of `hook-items` has it, cut down."""
    return {
        "type": "Repository",
        "id": hook.id,
        "name": "web",
        "active": True,
        "events": ["package", "registry_package", "workflow_run"],
        "config": {
            "content_type": "json",
            "insecure_ssl": "0",
            "url": hook.url,
            "secret": "********",
        },
    }
