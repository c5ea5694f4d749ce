"""A registry that is hostile, broken or slow in one way, and honest in all others.

It serves one image under every name and tag.  A behaviour is a function that gets a request and
says whether it answered it; what it leaves is answered as the distribution-spec wants it.
"""

from __future__ import annotations

import gzip
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.e2e.lab import image_of, payload
from tests.fakes.certificate import Certificate

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags)/(?P<wanted>[^/?]+)(\?.*)?")
_DRIP = 1.0  # seconds between two bytes
_BOMB = gzip.compress(bytes(64 << 20), 9) * 16  # 1 GiB of zeros in 1 MiB: members may follow


@dataclass(frozen=True)
class Asked:
    """One request: what it is for, and the ways to answer it."""

    server: Hostile
    handler: BaseHTTPRequestHandler
    kind: str
    wanted: str

    @property
    def is_get(self) -> bool:
        """Whether a body is wanted."""
        return self.handler.command == "GET"

    def begin(self, status: int = 200, **headers: str) -> None:
        """Send the head of an answer; an underscore in a header's name stands for a dash."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def answer(self, body: bytes, status: int = 200, **headers: str) -> bool:
        """Answer with a whole body."""
        self.begin(status, **{"Content_Length": str(len(body)), **headers})
        if self.is_get:
            self.handler.wfile.write(body)
        return True

    def go_on(self, parts: Iterator[bytes], pause: float = 0.0) -> bool:
        """Send parts for as long as somebody listens."""
        self.handler.close_connection = True
        for part in parts:
            self.handler.wfile.write(part)
            self.handler.wfile.flush()
            if pause and self.server.over.wait(pause):
                break
            if self.server.over.is_set():
                break
        return True

    def say_nothing(self) -> bool:
        """Keep the connection, and send nothing more."""
        self.handler.close_connection = True
        self.server.over.wait()
        return True

    def honestly(self) -> bool:
        """Answer as a registry does."""
        image = self.server.image
        if self.kind == "tags":
            return self.answer(json.dumps({"name": "x", "tags": ["v1"]}).encode())
        digest = self.wanted if ":" in self.wanted else image.digest
        content = image.blobs.get(digest)
        if content is None:
            return self.answer(b"{}", 404)
        media = "application/octet-stream"
        if self.kind == "manifests":
            media = image.descriptor["mediaType"]
        return self.answer(content, Content_Type=media, Docker_Content_Digest=digest)


Behaviour = Callable[[Asked], bool]


class Hostile:
    """A registry that behaves so while the context is open, once `begin` was called.

    Until then it has nothing.  `heard` are the Authorization headers that came.
    """

    def __init__(self, name: str, behaviour: Behaviour, certificate: Certificate | None = None):
        self.image = image_of(payload(f"hostile {name}"))
        self.over = threading.Event()
        self.heard: list[str] = []
        self.asked = 0
        self._begun = False
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 0

            def do_GET(self) -> None:
                hostile._answer(self, behaviour)

            do_HEAD = do_GET  # noqa: N815 - the name is the base class's

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.reference = f"{self.address}/lab/hostile:v1"
        if certificate is not None:
            self._server.socket = certificate.server_context().wrap_socket(
                self._server.socket, server_side=True
            )

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def begin(self) -> None:
        """Behave from now on."""
        self._begun = True

    def _answer(self, handler: BaseHTTPRequestHandler, behaviour: Behaviour) -> None:
        self.asked += 1
        if "Authorization" in handler.headers:
            self.heard.append(handler.headers["Authorization"])
        found = _PATH.fullmatch(handler.path)
        asked = Asked(
            self, handler, found["kind"] if found else "", found["wanted"] if found else ""
        )
        with suppress(OSError, ssl.SSLError):
            if not self._begun:
                asked.answer(b"{}", 404)
            elif not behaviour(asked):
                asked.honestly()


def _forever(part: bytes, first: bytes = b"") -> Iterator[bytes]:
    yield first
    while True:
        yield part


def _one_by_one(content: bytes) -> Iterator[bytes]:
    for number in range(len(content)):
        yield content[number : number + 1]


# --- slow and silent ---------------------------------------------------------------------------


def silent(asked: Asked) -> bool:
    """Take every request and answer none."""
    return asked.say_nothing()


def dripping_head(asked: Asked) -> bool:
    """Send the head of each answer byte by byte."""
    head = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"." * 10_000
    return asked.go_on(_one_by_one(head), _DRIP)


def dripping_document(asked: Asked) -> bool:
    """Send the manifest byte by byte."""
    if asked.kind != "manifests" or not asked.is_get:
        return False
    content = asked.server.image.blobs[asked.server.image.digest]
    asked.begin(Content_Length=str(len(content)))
    return asked.go_on(_one_by_one(content), _DRIP)


def dripping_blob(asked: Asked) -> bool:
    """Send each layer byte by byte."""
    content = asked.server.image.blobs.get(asked.wanted, b"")
    if asked.kind != "blobs" or not _is_layer(asked):
        return False
    asked.begin(Content_Length=str(len(content)))
    return asked.go_on(_one_by_one(content), _DRIP)


def stalling_blob(asked: Asked) -> bool:
    """Send half of each layer, and then nothing."""
    if asked.kind != "blobs" or not _is_layer(asked):
        return False
    content = asked.server.image.blobs[asked.wanted]
    asked.begin(Content_Length=str(len(content)))
    asked.handler.wfile.write(content[: len(content) // 2])
    return asked.say_nothing()


def _is_layer(asked: Asked) -> bool:
    layers = asked.server.image.document["layers"]
    return any(layer["digest"] == asked.wanted for layer in layers)


# --- documents ---------------------------------------------------------------------------------


def endless_manifest(asked: Asked) -> bool:
    if asked.kind != "manifests" or not asked.is_get:
        return False
    asked.begin(Content_Type="application/vnd.oci.image.manifest.v1+json")
    return asked.go_on(_forever(b'"x",' * 10_000, b'{"schemaVersion":2,"annotations":['))


def deep_manifest(asked: Asked) -> bool:
    return asked.kind == "manifests" and asked.answer(b"[" * 3_000_000, Content_Type="text/json")


def wide_manifest(asked: Asked) -> bool:
    body = b'{"schemaVersion":2,"layers":[' + b"{}," * 1_000_000 + b"{}]}"
    return asked.kind == "manifests" and asked.answer(body)


def other_manifest(asked: Asked) -> bool:
    """Promise one digest, and send another document."""
    if asked.kind != "manifests":
        return False
    digest = f"sha256:{'0' * 64}"
    body = asked.server.image.blobs[asked.server.image.digest] + b" "
    media = asked.server.image.descriptor["mediaType"]
    return asked.answer(body, Content_Type=media, Docker_Content_Digest=digest)


def login_page(asked: Asked) -> bool:
    page = b"<!DOCTYPE html><html><title>Sign in</title></html>"
    return asked.answer(page, Content_Type="text/html")


def gzip_bomb(asked: Asked) -> bool:
    """Send documents that become 1 GiB when they are decoded."""
    return asked.kind == "manifests" and asked.answer(_BOMB, Content_Encoding="gzip")


def gzip_bomb_of_tags(asked: Asked) -> bool:
    return asked.kind == "tags" and asked.answer(_BOMB, Content_Encoding="gzip")


def absurd_sizes(asked: Asked) -> bool:
    """Describe a layer of more bytes than there are."""
    if asked.kind != "manifests":
        return False
    image = asked.server.image.document
    image["layers"][0]["size"] = 1 << 62
    body = json.dumps(image).encode()
    return asked.answer(body, Content_Type=image["mediaType"])


# --- blobs -------------------------------------------------------------------------------------


def wrong_blob(asked: Asked) -> bool:
    """Send other bytes than the digest says."""
    if asked.kind != "blobs" or not _is_layer(asked):
        return False
    content = bytearray(asked.server.image.blobs[asked.wanted])
    content[-9] ^= 1
    return asked.answer(bytes(content))


def endless_blob(asked: Asked) -> bool:
    """Send more than the manifest says, and do not end."""
    if asked.kind != "blobs" or not _is_layer(asked):
        return False
    content = asked.server.image.blobs[asked.wanted]
    asked.begin()
    return asked.go_on(_forever(b"more" * 10_000, content[:-9]))


def short_length(asked: Asked) -> bool:
    """Say that a layer is shorter than it is."""
    if asked.kind != "blobs" or not _is_layer(asked):
        return False
    content = asked.server.image.blobs[asked.wanted]
    asked.handler.close_connection = True
    return asked.answer(content, Content_Length="9")


def long_length(asked: Asked) -> bool:
    """Say that a layer is longer than it is, and end."""
    if asked.kind != "blobs" or not _is_layer(asked):
        return False
    content = asked.server.image.blobs[asked.wanted]
    asked.handler.close_connection = True
    return asked.answer(content[:-9], Content_Length=str(len(content)))


# --- where answers lead ------------------------------------------------------------------------


def redirect_loop(asked: Asked) -> bool:
    return asked.answer(b"", 307, Location=asked.handler.path)


def redirect_chain(asked: Asked) -> bool:
    """Redirect to another path, again and again."""
    where = f"/v2/lab/{time.monotonic_ns()}/manifests/v1"
    return asked.answer(b"", 307, Location=where)


def endless_pages(asked: Asked) -> bool:
    """List one tag a page, with one more page behind each."""
    if asked.kind != "tags":
        return False
    tag = f"t{time.monotonic_ns()}"
    link = f"</v2/lab/hostile/tags/list?last={tag}>; rel=next"
    return asked.answer(json.dumps({"tags": [tag]}).encode(), Link=link)


def looping_pages(asked: Asked) -> bool:
    """List the same page behind itself."""
    link = "</v2/lab/hostile/tags/list>; rel=next"
    return asked.kind == "tags" and asked.answer(b'{"tags":["v1"]}', Link=link)


def endless_tags(asked: Asked) -> bool:
    """List tags on one page that does not end."""
    if asked.kind != "tags":
        return False
    asked.begin()
    return asked.go_on(_forever(b'"v1",' * 10_000, b'{"tags":['))


def garbage_tags(asked: Asked) -> bool:
    """List what are no tags."""
    tags = ["v2 x", "v2+1", "v2/../../x", "", "-", "x" * 129, "\x1b[2J", 7, None, ["v1"], {}]
    return asked.kind == "tags" and asked.answer(json.dumps({"tags": tags}).encode())


def binary_tags(asked: Asked) -> bool:
    return asked.kind == "tags" and asked.answer(bytes(range(256)) * 100)


# --- heads -------------------------------------------------------------------------------------


def huge_header(asked: Asked) -> bool:
    """Send a header of 64 MiB."""
    asked.handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Filler: ")
    return asked.go_on(iter([b"x" * 65_536] * 1024))


def many_headers(asked: Asked) -> bool:
    """Send headers without end."""
    asked.handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    return asked.go_on(_forever(b"X-Filler: x\r\n" * 1000))


def no_http(asked: Asked) -> bool:
    return asked.go_on(iter([b"\x16\x03\x01" * 1000]))
