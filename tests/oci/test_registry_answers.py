"""What `oci.registry` promises of answers that are legal, and unlike most registries' answers."""

from __future__ import annotations

import gzip
import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.config.settings import RegistrySettings
from syncd.errors import ImageError, NotFoundError, RegistryError, RegistryUnavailableError
from syncd.oci.image import read_image
from syncd.oci.reference import Digest, Reference
from syncd.oci.registry import Registry
from tests.fakes.registry import Registry as Fake
from tests.images import document, image
from tests.oci.test_registry import (
    AMD64,
    BASE,
    IMAGE,
    REPOSITORY,
    Waits,
    door,
    latest,
    password,
    read_all,
)

TYPE = str(IMAGE.descriptor["mediaType"])
PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in\nplease</title></head>"
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 501])
def test_head_that_is_refused(registry: Fake, status: int) -> None:
    """Where HEAD is refused GET is asked once, and its answer counts."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.heads = [(status, {}, b"")] * 5
    assert str(door(registry).resolve(latest(registry)).digest) == IMAGE.digest
    assert registry.requests[-1][0] == "GET"


def test_head_and_get_refused(registry: Fake) -> None:
    """What GET refuses too is told in the registry's words, which a HEAD cannot carry."""
    with pytest.raises(NotFoundError, match="404 MANIFEST_UNKNOWN: manifest unknown"):
        door(registry).resolve(latest(registry))
    assert [method for method, _ in registry.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "said",
    [
        {"Content-Length": str(len(gzip.compress(IMAGE.blobs[IMAGE.digest])))},
        {"Content-Length": "0"},
        {"Content-Length": "5", "Content-Encoding": "gzip"},
        {"Transfer-Encoding": "chunked"},
    ],
)
def test_length_of_head(registry: Fake, said: dict[str, str]) -> None:
    """The length in a HEAD's answer is no evidence of the document's."""
    registry.push(REPOSITORY, "latest", IMAGE)
    headers = {"Content-Type": TYPE, "Docker-Content-Digest": IMAGE.digest, **said}
    registry.faults.heads = [(200, headers, b"")]
    source = door(registry)
    assert read_image(source, source.resolve(latest(registry)), AMD64)


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{"])
def test_retry_after_as_a_date(registry: Fake, zone: str, body: bytes) -> None:
    """Retry-After may be a date; it is compared with the date of the answer."""
    until = formatdate(time.time() + 20, usegmt=True).replace("GMT", zone)
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.refusals = [(429, {"Retry-After": until}, body)]
    door(registry, waits := Waits()).resolve(latest(registry))
    assert len(waits) == 1
    assert 18 <= waits[0] <= 21


@pytest.mark.parametrize("said", ["soon", "Fri, 99 Foo 2026 00:00:00 GMT", "-1", "", "9" * 400])
def test_retry_after_that_is_none(registry: Fake, said: str) -> None:
    """A Retry-After that says nothing is waited out like any fault, and never for ever."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.refusals = [(429, {"Retry-After": said}, b"")]
    door(registry, waits := Waits()).resolve(latest(registry))
    assert 0 < waits[0] <= 60


LIMIT = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"secondary rate limit"}]}'


@pytest.mark.parametrize(
    ("heads", "refusals"),
    [
        ([(403, {}, b"")] * 2, [(403, {}, LIMIT)]),
        ([(403, {"Retry-After": "5"}, b"")], []),
        ([(425, {}, b"")], []),
        ([(599, {}, b"")], []),
        ([(520, {}, b"")], []),
        ([(507, {}, b"")], []),
    ],
)
def test_passing_refusal_of_head(
    registry: Fake,
    heads: list[tuple[int, dict[str, str], bytes]],
    refusals: list[tuple[int, dict[str, str], bytes]],
) -> None:
    """A HEAD's 403 may be a limit, which its GET tells; 425 and each 5xx pass."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.heads, registry.faults.refusals = heads, refusals
    assert door(registry, waits := Waits()).resolve(latest(registry))
    assert len(waits) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
@pytest.mark.parametrize("times", [1, 2])
def test_store_that_refuses(status: int, times: int, tmp_path: Path) -> None:
    """A storage host's refusal is asked for a fresh URL once, and is never the registry's."""
    with Fake(("user", "right"), "bearer") as fake, Fake() as store:
        for each in (fake, store):
            each.push(REPOSITORY, "latest", IMAGE)
        fake.faults.blobs_at = store.address
        store.faults.refusals = [(status, {}, b"<Error><Code>AccessDenied</Code></Error>")] * times
        source = door(fake, waits := Waits(), login=("user", password(tmp_path)))
        if times == 1:
            assert read_all(source) == BASE.stored
        else:
            with pytest.raises(RegistryError, match=r"where registry.*redirects to") as caught:
                read_all(source)
            assert not isinstance(caught.value, NotFoundError)
        assert waits == []
        assert len(fake.tokens) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_store_on_the_same_host(times: int) -> None:
    """A signed URL of the registry's own host that is over is asked for a fresh one once, too."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.split("/")[1])
            signed = asked[-1] == "store"
            refused = signed and asked.count("store") <= times
            self.send_response(403 if refused else 200 if signed else 307)
            content = BASE.stored if signed and not refused else b""
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Location", f"/store{self.path}")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        host = f"127.0.0.1:{server.server_port}"
        settings = RegistrySettings(host=host, plain_http=True)
        source = Registry(Reference(host, REPOSITORY, "latest"), settings, pause=Waits())
        try:
            if times == 1:
                assert read_all(source) == BASE.stored
            else:
                with pytest.raises(RegistryError, match=f"registry {host} answers 403"):
                    read_all(source)
        finally:
            server.shutdown()
    assert asked == ["v2", "store"] * 2


def test_store_that_is_busy() -> None:
    """A storage host that is overloaded is waited for like a registry, and named."""
    with Fake() as fake, Fake() as store:
        fake.faults.blobs_at = store.address.replace("127.0.0.1", "localhost")
        store.faults.refusals = [(503, {"Retry-After": "3"}, b"")] * 5
        with pytest.raises(RegistryUnavailableError, match="localhost, where registry"):
            read_all(door(fake, waits := Waits()))
        assert min(waits) >= 3


@pytest.mark.parametrize("status", [200, 403, 404])
def test_web_page(registry: Fake, status: int) -> None:
    """A login page or an error page is told as what it is, by its title."""
    registry.push(REPOSITORY, "latest", IMAGE)
    registry.faults.refusals = [(status, HTML, PAGE)] * 4
    source = door(registry)
    for read in (lambda: source.resolve(latest(registry)), source.tags):
        with pytest.raises(RegistryError, match=r"a web page \(Log in please\)"):
            read()


def test_web_page_instead_of_a_blob(registry: Fake) -> None:
    """A login page that comes instead of a blob is told, not taken for the blob."""
    registry.faults.refusals = [(200, HTML, PAGE)]
    with pytest.raises(RegistryError, match="a web page instead of the blob"):
        read_all(door(registry))


def test_store_that_knows_only_get() -> None:
    """A HEAD that a store refuses is asked again by GET: its URLs may be signed for GET only."""
    with Fake() as fake, Fake() as store:
        for each in (fake, store):
            each.push(REPOSITORY, "latest", IMAGE)
        where = f"http://{store.address}/v2/{REPOSITORY}/manifests/latest"
        fake.faults.refusals = [(307, {"Location": where}, b"")] * 3
        store.faults.heads = [(403, {}, b"")] * 2
        assert str(door(fake).resolve(latest(fake)).digest) == IMAGE.digest
        assert store.requests[-1][0] == "GET"


def test_web_page_of_a_token_service() -> None:
    """A token service that answers a login page is told."""
    with Fake(scheme="bearer") as fake:
        fake.faults.tokens = [(200, PAGE)]
        with pytest.raises(RegistryError, match=r"token service.*a web page \(Log in please\)"):
            door(fake).resolve(latest(fake))


def test_http_on_the_port_of_tls(registry: Fake) -> None:
    """A registry that speaks HTTP where HTTPS is expected is told, with the key to change."""
    with pytest.raises(RegistryError, match=r"does not speak HTTPS.*plain_http = true") as caught:
        door(registry, waits := Waits(), plain_http=False).resolve(latest(registry))
    assert waits == []
    assert not caught.value.temporary


def test_https_on_a_plain_port(registry: Fake) -> None:
    """A registry that expects HTTPS says so itself, and the key to change is named."""
    registry.faults.refusals = [(400, {}, b"Client sent an HTTP request to an HTTPS server.\n")] * 2
    with pytest.raises(RegistryError, match="take plain_http from"):
        door(registry).tags()


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/x", "http://127.0.0.1:99999/", "http://", "http://[", "http://[::1"],
)
def test_redirect_to_nowhere(registry: Fake, location: str) -> None:
    """A redirect that no client can follow is a lasting fault: it is not tried again."""
    registry.faults.refusals = [(307, {"Location": location}, b"")] * 9
    with pytest.raises(RegistryError) as caught:
        door(registry, waits := Waits()).tags()
    assert waits == []
    assert not caught.value.temporary


def test_redirect_in_a_circle(registry: Fake) -> None:
    """Redirects have an end, and that is a lasting fault."""
    registry.faults.refusals = [(307, {"Location": f"/v2/{REPOSITORY}/tags/list"}, b"")] * 99
    with pytest.raises(RegistryError, match="leads nowhere") as caught:
        door(registry).tags()
    assert not caught.value.temporary


def test_digest_of_another_algorithm(registry: Fake) -> None:
    """An image asked for by its sha512 is compared by sha512 when it has to be read."""
    content = IMAGE.blobs[IMAGE.digest]
    wanted = Digest.of(content, "sha512")
    registry.faults.refusals = [(200, {"Content-Type": TYPE}, content)] * 2
    reference = Reference.parse(f"{latest(registry).name}@{wanted}")
    assert door(registry).resolve(reference).digest == wanted


GENERIC = [
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "text/html; charset=UTF-8",
    "application/octet-stream",
    "",
    TYPE.upper(),
    "application/vnd.oci.image.index.v1+json",
]


@pytest.mark.parametrize("media_type", GENERIC)
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("docker", [False, True])
def test_content_type(registry: Fake, media_type: str, typed: bool, docker: bool) -> None:
    """What a manifest is, is decided by its content; it is never asked for as a blob."""
    content = image(BASE, docker=docker)
    if not typed:
        fields = content.document
        del fields["mediaType"]
        content = document(fields, content.blobs)
    registry.push(REPOSITORY, "latest", content)
    registry.repositories[REPOSITORY].types[content.digest] = media_type
    source = door(registry)
    found = read_image(source, source.resolve(latest(registry)), AMD64)
    assert str(found.digest) == content.digest
    assert registry.fetched() == [content.document["config"]["digest"]]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        TYPE,
        "application/json",
    ],
)
def test_schema_1(registry: Fake, media_type: str) -> None:
    """A registry that has only Docker's first format is told of as that."""
    old = document({"schemaVersion": 1, "name": "o/r", "fsLayers": [], "history": []}, {})
    registry.push(REPOSITORY, "latest", old)
    registry.repositories[REPOSITORY].types[old.digest] = media_type
    source = door(registry)
    with pytest.raises(ImageError, match=r"schema version 1, .*push the image again"):
        read_image(source, source.resolve(latest(registry)), AMD64)


ODD_TAGS = [
    "v2 x",
    "v2+1",
    "v2/../../x",
    "",
    ".v1",
    "-v1",
    "v1\n",
    "é",
    "x" * 129,
    "x" * 5000,
    "a:b",
]


def test_odd_tags(registry: Fake) -> None:
    """What the grammar does not allow is no tag; it is skipped and told, and tags come once."""
    listed: list[object] = [
        "v1",
        *ODD_TAGS,
        None,
        5,
        ["v3"],
        {},
        True,
        "v1",
        "_V.2-x",
        "x" * 128,
    ]
    body = json.dumps({"name": REPOSITORY, "tags": listed}).encode()
    registry.faults.refusals = [(200, {}, body)]
    with capture_logs() as logs:
        assert door(registry).tags() == ["v1", "_V.2-x", "x" * 128]
    assert [(entry["event"], entry["number"]) for entry in logs] == [("tags skipped", 16)]
    assert len(str(logs)) < 1000


@pytest.mark.parametrize("body", [b'{"tags": "v1"}', b'{"tags": {"v1": 1}}', b'{"tags": 5}'])
def test_tags_that_are_no_list(registry: Fake, body: bytes) -> None:
    """Tags that are no list are no tags."""
    registry.faults.refusals = [(200, {}, body)]
    with pytest.raises(RegistryError, match="no list of tags"):
        door(registry).tags()
