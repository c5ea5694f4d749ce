"""A small registry on loopback, in this process: what the distribution specification asks of one.

Serves images made by `tests.images`, with the faults that tests ask for, and writes down every
request.  Never checks anything syncd is to check itself.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.certificate import Certificate
from tests.images import Content


@dataclass
class Faults:
    """What goes wrong, each until its count is used up."""

    refusals: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Answers (status, headers, body) given instead of the next ones due."""
    break_after: list[int] = field(default_factory=list)
    """Each entry cuts one blob's stream after so many bytes."""
    ranges: bool = True
    """Whether Range is honoured."""
    silent_head: bool = False
    """Whether HEAD leaves out the digest."""
    content_range: str | None = None
    """What a resumed blob's Content-Range says instead."""
    blobs_at: str = ""
    """Another server's address that blobs are redirected to."""
    endless: bool = False
    """Whether documents go on and on."""
    tokens: list[tuple[int, bytes]] = field(default_factory=list)
    """Answers (status, body) of the token service, instead of the next ones due."""
    realm: str | None = None
    """The token service that challenges name."""
    stalls: dict[str, threading.Event] = field(default_factory=dict)
    """What a blob, by digest, waits for between its headers and its content."""
    next_tags: str | None = None
    """Where the list of tags goes on, instead of on the next page."""


class Registry:
    """The registry; `address` is `127.0.0.1:PORT`."""

    def __init__(self, login: tuple[str, str] | None = None, scheme: str = "basic") -> None:
        self.login = login
        self.scheme = scheme
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        self.ranges: list[str] = []
        self._tags: dict[str, dict[str, Content]] = {}
        self._blobs: dict[str, bytes] = {}
        self._types: dict[str, str] = {}
        registry = self

        class Handler(_Handler):
            served = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def encrypt(self, certificate: Certificate) -> None:
        """Speak HTTPS from now on."""
        self._server.socket = certificate.server_context().wrap_socket(
            self._server.socket, server_side=True
        )

    def push(self, repository: str, tag: str, content: Content) -> str:
        """Let `tag` point at an image or index; return its reference."""
        self._tags.setdefault(repository, {})[tag] = content
        self._blobs |= content.blobs
        self._types[content.digest] = content.descriptor["mediaType"]
        for entry in content.document.get("manifests", []):
            self._types[entry["digest"]] = entry["mediaType"]
        return f"{self.address}/{repository}:{tag}"

    def replace_blob(self, digest: str, content: bytes | None) -> None:
        """Serve other bytes under a digest, or none at all."""
        if content is None:
            del self._blobs[digest]
        else:
            self._blobs[digest] = content

    def fetched(self) -> list[str]:
        """Return the digests of the blobs that were asked for, in order."""
        return [path.rpartition("/")[2] for method, path in self.requests if "/blobs/" in path]

    def manifest(self, repository: str, wanted: str) -> tuple[str, str, bytes] | None:
        """Return digest, media type and bytes of a manifest, by tag or digest."""
        tagged = self._tags.get(repository, {}).get(wanted)
        digest = tagged.digest if tagged else wanted
        if digest not in self._types or digest not in self._blobs:
            return None
        return digest, self._types[digest], self._blobs[digest]

    def blob(self, digest: str) -> bytes | None:
        """Return a blob's bytes."""
        return self._blobs.get(digest)

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository, sorted."""
        return sorted(self._tags.get(repository, {}))


class _Handler(BaseHTTPRequestHandler):
    served: Registry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing: `Registry.requests` has it all."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        served, parts = self.served, urlsplit(self.path)
        served.requests.append((self.command, parts.path))
        served.authorizations.append(self.headers.get("Authorization", ""))
        served.ranges.append(self.headers.get("Range", ""))
        if parts.path == "/token":
            return self._token()
        if served.faults.refusals:
            status, headers, body = served.faults.refusals.pop(0)
            return self._answer(status, headers, body)
        if not self._admitted():
            return None
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            return self._manifest(repository, rest)
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/blobs/")
        if rest:
            return self._blob(rest)
        repository, _, rest = parts.path.removeprefix("/v2/").rpartition("/tags/list")
        return self._tag_list(repository or rest, parse_qs(parts.query))

    def _admitted(self) -> bool:
        """Challenge whoever lacks the credentials (RFC 9110, section 11)."""
        served = self.served
        if served.login is None and served.scheme == "basic":
            return True
        user = ":".join(served.login or ("", ""))
        expected = {
            "basic": "Basic " + base64.b64encode(user.encode()).decode(),
            "bearer": "Bearer opaque",
        }[served.scheme]
        if self.headers.get("Authorization") == expected:
            return True
        challenge = {
            "basic": 'Basic realm="test"',
            "bearer": f'Bearer realm="{served.faults.realm or f"http://{served.address}/token"}",'
            'service="test",scope="repository:x:pull"',
        }[served.scheme]
        self._refuse(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def _token(self) -> None:
        login, faults = self.served.login, self.served.faults
        if faults.tokens:
            status, body = faults.tokens.pop(0)
            return self._answer(status, {"Content-Type": "application/json"}, body)
        given = self.headers.get("Authorization", "")
        wanted = "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else ""
        if given != wanted:
            return self._refuse(401, "DENIED", {})
        return self._answer(200, {"Content-Type": "application/json"}, b'{"token": "opaque"}')

    def _manifest(self, repository: str, wanted: str) -> None:
        found = self.served.manifest(repository, wanted)
        if found is None:
            return self._refuse(404, "MANIFEST_UNKNOWN", {})
        digest, media_type, content = found
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        if self.command == "HEAD" and self.served.faults.silent_head:
            headers = {}
        if self.command == "GET" and self.served.faults.endless:
            return self._endless(headers)
        return self._answer(200, headers, content, may_break=self.command == "GET")

    def _endless(self, headers: Mapping[str, str]) -> None:
        """Send a document that says nothing of its length, until nobody listens any more."""
        self.close_connection = True
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 20))

    def _blob(self, digest: str) -> None:
        content, faults = self.served.blob(digest), self.served.faults
        if faults.blobs_at:
            return self._answer(307, {"Location": f"http://{faults.blobs_at}{self.path}"}, b"")
        if content is None:
            return self._refuse(404, "BLOB_UNKNOWN", {})
        status, headers = 200, {"Content-Type": "application/octet-stream"}
        asked = self.headers.get("Range", "")
        if asked and faults.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            given = f"bytes {start}-{len(content) - 1}/{len(content)}"
            headers["Content-Range"] = faults.content_range or given
            status, content = 206, content[start:]
        return self._answer(status, headers, content, may_break=True)

    def _tag_list(self, repository: str, query: Mapping[str, list[str]]) -> None:
        tags = self.served.tags(repository)
        last = query.get("last", [""])[0]
        page = [tag for tag in tags if tag > last][:2]
        headers = {"Content-Type": "application/json"}
        if page and page[-1] != tags[-1]:
            following = f"/v2/{repository}/tags/list?n=2&last={page[-1]}"
            headers["Link"] = f'<{self.served.faults.next_tags or following}>; rel="next"'
        body: dict[str, Any] = {"name": repository, "tags": page or None}
        return self._answer(200, headers, json.dumps(body).encode())

    def _refuse(self, status: int, code: str, headers: dict[str, str]) -> None:
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self._answer(status, headers, body)

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, *, may_break: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.served.faults.break_after
        if may_break and cuts:
            body = body[: cuts.pop(0)]
            self.close_connection = True
        if stall := self.served.faults.stalls.get(self.path.rpartition("/")[2]):
            stall.wait(60)
        with suppress(ConnectionError):
            self.wfile.write(body)
