"""A small registry on loopback, in this process, that refuses what distribution refuses.

Serves images made by `tests.images`, with the faults that tests ask for, and writes down every
request.  Never checks anything syncd is to check itself.  What it refuses is in
`tests.fakes.registry_rules`, and is held against Debian's docker-registry by
`tests.registry_contract`.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.certificate import Certificate
from tests.fakes.registry_rules import (
    BOUNDARY,
    JSON,
    PATH,
    RefusalError,
    Repository,
    Token,
    byte_ranges,
    multipart,
)
from tests.images import Content


@dataclass
class Faults:
    """What goes wrong, each until its count is used up."""

    refusals: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Answers (status, headers, body) given instead of the next ones due."""
    heads: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """The same, but for HEAD only."""
    break_after: list[int] = field(default_factory=list)
    """Each entry cuts one blob's stream after so many bytes."""
    ranges: bool = True
    """Whether Range is honoured."""
    several: int | None = None
    """The status of the answer to several ranges, instead of all of them: 200, 206 (the first one
    alone), or a refusal's."""
    answered: Callable[[list[tuple[int, int]]], list[tuple[int, int]]] = list
    """Which of several ranges are answered, and in which order."""
    mangled: Callable[[bytes], bytes] = bytes
    """What becomes of the body that answers several ranges."""
    multipart: str = f"multipart/byteranges; boundary={BOUNDARY}"
    """The media type of the answer to several ranges."""
    silent_head: bool = False
    """Whether HEAD leaves out the digest."""
    content_range: str | None = None
    """What a resumed blob's Content-Range says instead."""
    shift: int = 0
    """By how many bytes the content of a range is another than the one that was asked for."""
    cut_ranges: list[int] = field(default_factory=list)
    """Each entry cuts one range of a blob after so many bytes."""
    busy_ranges: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Answers (status, headers, body) given instead of the next ranges of a blob."""
    blobs_at: str = ""
    """Another server's address that blobs are redirected to."""
    endless: bool = False
    """Whether documents go on and on."""
    tokens: list[tuple[int, bytes]] = field(default_factory=list)
    """Answers (status, body) of the token service, instead of the next ones due."""
    token_field: str = "token"
    """The name of the token in the token service's answer: this, or `access_token`."""
    realm: str | None = None
    """The token service that challenges name."""
    challenges: list[str] = field(default_factory=list)
    """The `WWW-Authenticate` headers of a refusal; `OWN` stands for the challenge due."""
    expires_in: float | None = None
    """How many seconds the token service says that a token lasts."""
    stalls: dict[str, threading.Event] = field(default_factory=dict)
    """What a blob, by digest, waits for between its headers and its content."""
    next_tags: str | None = None
    """Where the list of tags goes on, instead of on the next page."""
    referrers: list[dict[str, Any]] | None = None
    """What the list of referrers says, whatever was pushed."""
    ahead: float = 0.0
    """How many seconds the registry's clock is ahead of this host's."""


class Registry:
    """The registry; `address` is `127.0.0.1:PORT`.

    With a `login`, nothing is served without it: by `scheme` it is sent to the registry (`basic`)
    or exchanged for a token (`bearer`).  `bearer` without a login gives anybody a token.
    """

    service = "registry.test"
    """The name that challenges give it, and that tokens have to be for."""

    def __init__(self, login: tuple[str, str] | None = None, scheme: str = "basic") -> None:
        self.login = login
        self.scheme = scheme
        self.lists_referrers = False
        """Whether it has the list of referrers, as distribution 3 and zot do, and 2.8 does not."""
        self.tags_per_page = 2
        """How many tags it lists at most at a time; distribution-spec, "Listing Tags"."""
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        self.ranges: list[str] = []
        self.connections = 0
        self.tokens: dict[str, Token] = {}
        self.repositories: dict[str, Repository] = {}
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
        pushed = self.repositories.setdefault(repository, Repository())
        pushed.blobs |= content.blobs
        pushed.types[content.digest] = content.descriptor["mediaType"]
        for entry in content.document.get("manifests", []):
            pushed.types[entry["digest"]] = entry["mediaType"]
        pushed.tags[tag] = content.digest
        return f"{self.address}/{repository}:{tag}"

    def untag(self, repository: str, tag: str) -> None:
        """Take a tag away; what it pointed at stays."""
        del self.repositories[repository].tags[tag]

    def replace_blob(self, digest: str, content: bytes | None) -> None:
        """Serve other bytes under a digest, or none at all, in each repository that has it."""
        for repository in self.repositories.values():
            if digest in repository.blobs:
                del repository.blobs[digest]
                if content is not None:
                    repository.blobs[digest] = content

    def fetched(self) -> list[str]:
        """Return the digests of the blobs that were asked for, in order."""
        return [path.rpartition("/")[2] for method, path in self.requests if "/blobs/" in path]


class _Handler(BaseHTTPRequestHandler):
    served: Registry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    challenges: Sequence[str] = ()

    def log_message(self, *_: object) -> None:
        """Say nothing: `Registry.requests` has it all."""

    def handle(self) -> None:
        """Serve a connection, which a client may drop at any time."""
        self.served.connections += 1
        with suppress(ConnectionError):
            super().handle()

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        served, parts = self.served, urlsplit(self.path)
        served.requests.append((self.command, parts.path))
        served.authorizations.append(self.headers.get("Authorization", ""))
        served.ranges.append(self.headers.get("Range", ""))
        try:
            if parts.path == "/token":
                self._token(parse_qs(parts.query))
            elif self.command == "HEAD" and served.faults.heads:
                self._answer(*served.faults.heads.pop(0))
            elif served.faults.refusals:
                self._answer(*served.faults.refusals.pop(0))
            else:
                self._find(parts.path, parse_qs(parts.query))
        except RefusalError as refusal:
            self._answer(*refusal.answer)

    def _find(self, path: str, query: Mapping[str, list[str]]) -> None:
        if path == "/v2/":
            # distribution-spec, "Determining Support".
            self._admit("")
            return self._answer(200, JSON, b"{}")
        found = PATH.fullmatch(path)
        if found is None or (found["kind"] == "referrers" and not self.served.lists_referrers):
            raise RefusalError.no_such_path()
        self._admit(found["name"])
        repository = self.served.repositories.get(found["name"])
        if found["kind"] == "manifests":
            return self._manifest(repository or Repository(), found["wanted"])
        if found["kind"] == "blobs":
            return self._blob(repository or Repository(), found["wanted"])
        if repository is None:
            raise RefusalError.of(404, "NAME_UNKNOWN")
        if found["kind"] == "referrers":
            return self._referrers(repository, found["name"], found["wanted"], query)
        return self._tag_list(found["name"], sorted(repository.tags), query)

    def _admit(self, repository: str) -> None:
        """Challenge whoever lacks the login, or a token for this repository."""
        served, presented = self.served, self.headers.get("Authorization", "")
        if served.scheme == "bearer":
            challenge = self._lacking(presented, repository)
        else:
            # RFC 7617, section 2.
            admitted = served.login is None or presented == _basic(served.login)
            challenge = "" if admitted else 'Basic realm="test"'
        if challenge:
            wanted = served.faults.challenges or ["OWN"]
            self.challenges = [text.replace("OWN", challenge) for text in wanted]
            raise RefusalError.of(401, "UNAUTHORIZED")

    def _lacking(self, presented: str, repository: str) -> str:
        """Return the challenge for a header that opens nothing here; nothing if it does.

        Source: https://distribution.github.io/distribution/spec/auth/token/
        """
        served = self.served
        realm = served.faults.realm or f"http://{served.address}/token"
        challenge = f'Bearer realm="{realm}",service="{served.service}"'
        if repository:
            challenge += f',scope="repository:{repository}:pull"'
        scheme, _, text = presented.partition(" ")
        if scheme.lower() != "bearer" or not text:
            return challenge
        token = served.tokens.get(text)
        fault = token.fault(served.service, repository) if token else "invalid_token"
        return f'{challenge},error="{fault}"' if fault else ""

    def _token(self, query: Mapping[str, list[str]]) -> None:
        """Issue a token for what is asked for: for no service and no scope where none is.

        Source: https://distribution.github.io/distribution/spec/auth/token/
        """
        served = self.served
        if served.faults.tokens:
            status, body = served.faults.tokens.pop(0)
            return self._answer(status, JSON, body)
        presented = self.headers.get("Authorization", "")
        if presented != (_basic(served.login) if served.login else ""):
            raise RefusalError.of(401, "UNAUTHORIZED")
        text = secrets.token_urlsafe()
        scopes = frozenset(" ".join(query.get("scope", [])).split())
        served.tokens[text] = Token(query.get("service", [""])[0], scopes)
        answer: dict[str, Any] = {served.faults.token_field: text}
        if served.faults.expires_in is not None:
            answer["expires_in"] = served.faults.expires_in
        return self._answer(200, JSON, json.dumps(answer).encode())

    def _manifest(self, repository: Repository, wanted: str) -> None:
        accept = self.headers.get_all("Accept", [])
        digest, media_type, content = repository.manifest(wanted, accept)
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

    def _blob(self, repository: Repository, digest: str) -> None:
        faults = self.served.faults
        if faults.blobs_at:
            return self._answer(307, {"Location": f"http://{faults.blobs_at}{self.path}"}, b"")
        content = repository.blob(digest)
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        asked = self.headers.get("Range", "") if faults.ranges else ""
        if asked and faults.busy_ranges:
            return self._answer(*faults.busy_ranges.pop(0))
        ranges = byte_ranges(asked, len(content)) if asked else []
        if len(ranges) > 1 and faults.several not in (None, 200, 206):
            return self._answer(faults.several, {}, b"{}")
        if len(ranges) > 1 and faults.several is not None:
            ranges = ranges[: faults.several == 206]
        if not ranges:
            return self._answer(200, headers, content, may_break=True)
        if len(ranges) > 1:
            return self._several_ranges(headers, content, ranges)
        first, last = ranges[0]
        place = f"bytes {first}-{last}/{len(content)}"
        headers["Content-Range"] = faults.content_range or place
        headers["Content-Length"] = str(last + 1 - first)
        body = content[first - faults.shift : last + 1 - faults.shift]
        if faults.cut_ranges:
            body = body[: faults.cut_ranges.pop(0)]
            self.close_connection = True
        return self._answer(206, headers, body, may_break=True)

    def _several_ranges(
        self, headers: dict[str, str], content: bytes, ranges: list[tuple[int, int]]
    ) -> None:
        """Answer several ranges of a blob."""
        faults = self.served.faults
        body = faults.mangled(multipart(content, faults.answered(ranges), faults.shift))
        headers |= {"Content-Type": faults.multipart, "Content-Length": str(len(body))}
        if faults.cut_ranges:
            body = body[: faults.cut_ranges.pop(0)]
            self.close_connection = True
        return self._answer(206, headers, body, may_break=True)

    def _referrers(
        self, repository: Repository, name: str, subject: str, query: Mapping[str, list[str]]
    ) -> None:
        """List what refers to a manifest by thousands (distribution-spec, "Listing Referrers")."""
        listed = self.served.faults.referrers
        if listed is None:
            listed = repository.referrers(subject)
        begin = int(query.get("from", ["0"])[0])
        page = listed[begin : begin + 1000]
        headers = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
        if begin + 1000 < len(listed):
            following = f"/v2/{name}/referrers/{subject}?from={begin + 1000}"
            headers["Link"] = f'<{following}>; rel="next"'
        body = {"schemaVersion": 2, "mediaType": headers["Content-Type"], "manifests": page}
        return self._answer(200, headers, json.dumps(body).encode())

    def _tag_list(self, repository: str, tags: list[str], query: Mapping[str, list[str]]) -> None:
        """List tags by twos (distribution-spec, "Listing Tags"; docker-registry 2.8 lists all)."""
        last = query.get("last", [""])[0]
        page = [tag for tag in tags if tag > last][: self.served.tags_per_page]
        headers = dict(JSON)
        if page and page[-1] != tags[-1]:
            following = f"/v2/{repository}/tags/list?n={len(page)}&last={page[-1]}"
            headers["Link"] = f'<{self.served.faults.next_tags or following}>; rel="next"'
        body: dict[str, Any] = {"name": repository, "tags": page or None}
        return self._answer(200, headers, json.dumps(body).encode())

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, *, may_break: bool = False
    ) -> None:
        # nginx in front of a registry compresses the same answers, if its gzip is on
        # (https://nginx.org/en/docs/http/ngx_http_gzip_module.html): whoever allows it gets it.
        if self.command == "GET" and status in (200, 403, 404) and self._allows_gzip():
            headers, body = {**headers, "Content-Encoding": "gzip"}, gzip.compress(body, 1)
        self.send_response(status)
        for challenge in self.challenges:
            self.send_header("WWW-Authenticate", challenge)
        self.challenges = []
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
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

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the Date header by the registry's own clock."""
        return super().date_time_string((timestamp or time.time()) + self.served.faults.ahead)

    def _allows_gzip(self) -> bool:
        return "gzip" in re.split(r"[,;\s]+", self.headers.get("Accept-Encoding", ""))


def _basic(login: tuple[str, str]) -> str:
    """Return the header of a login (RFC 7617, section 2)."""
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()
