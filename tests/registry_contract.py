"""What a registry answers to whom: one table for the double and for Debian's docker-registry.

`tests/test_fake_registry.py` asks the double in `make test`, `tests/e2e/test_registry_contract.py`
asks docker-registry (distribution 2.8) in `make e2e`.  Where they disagree, the double is wrong.
Left out is what registries do not agree on: pages of tags, malformed digests of manifests
(docker-registry answers 500).  Several ranges are answered as Go's net/http does it, which is what
most registries are written with.

Sources: https://github.com/opencontainers/distribution-spec/blob/main/spec.md and
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.archives import file
from tests.images import Content, image, index, layer

LOGIN = ("reader", "right")
APP, OTHER = "acme/app", "acme/other"

_BASE = layer(file("a", b"0123456789" * 50), compression="")
_OCI = image(_BASE)
_DOCKER = image(_BASE, docker=True)
_INDEX = index(image(_BASE, platform="linux/arm64"), _OCI)
_LIST = index(image(_BASE, docker=True, platform="linux/arm64"), _DOCKER, docker=True)
_STRANGER = image(layer(file("b", b"other"), compression=""))

CONTENT: dict[str, dict[str, Content]] = {
    APP: {"oci": _OCI, "docker": _DOCKER, "index": _INDEX, "list": _LIST},
    OTHER: {"latest": _STRANGER},
}
"""What a registry has to hold: images and indexes by repository and tag."""

_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ALL = {"Accept": f"{_OCI_INDEX}, {_DOCKER_LIST}, {_OCI_MANIFEST}, {_DOCKER_MANIFEST}"}

_BLOB = str(_OCI.document["layers"][0]["digest"])
_SIZE = len(_BASE.stored)
_ABSENT = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Exchange:
    """A request, and what has to be in its answer.

    In headers and in `token`, `{realm}` and `{service}` stand for what the registry's challenge
    says, and `{boundary}`, in a body BOUNDARY, for what stands between the parts of this answer.
    `token` is the query with which a token is fetched before; `code` is the error's of a
    JSON body; `body`, where there is one, is the whole body.
    """

    path: str
    status: int
    code: str = ""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    answer: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def differences(self, address: str) -> dict[str, tuple[object, object]]:
        """Ask the registry at `address`; return what differs: (as it should be, as it is)."""
        challenge = _challenge(address)
        headers = dict(self.headers)
        if self.token is not None:
            query = self.token.format_map(challenge)
            headers["Authorization"] = f"Bearer {_fetch_token(challenge['realm'], query)}"
        status, answered, body = ask(address, self.method, self.path, headers)
        expected: dict[str, object] = {"status": self.status, "code": self.code}
        found: dict[str, object] = {"status": status, "code": ""}
        if self.method != "HEAD" and "json" in answered.get("Content-Type", "") and status >= 400:
            found["code"] = json.loads(body)["errors"][0]["code"]
        _, _, boundary = answered.get("Content-Type", "").partition("boundary=")
        if boundary:
            body = body.replace(boundary.encode(), _BOUNDARY.encode())
        for name, value in self.answer.items():
            expected[name] = value.format_map({**challenge, "boundary": boundary})
            found[name] = answered.get(name)
        if self.body is not None:
            expected["body"], found["body"] = self.body, body
        return {
            name: (value, found[name]) for name, value in expected.items() if value != found[name]
        }


def ask(
    address: str, method: str, path: str, headers: Mapping[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Make one request; return status, headers and body, which may be shorter than promised."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        try:
            body = answer.read()
        except http.client.IncompleteRead as cut:
            # distribution 2.8 leaves a blob's Content-Length in the refusal of a range.
            body = cut.partial
        return answer.status, answer.headers, body
    finally:
        connection.close()


def _challenge(address: str) -> dict[str, str]:
    """Return the realm and the service that the registry asks to be logged in to."""
    _, answered, _ = ask(address, "GET", "/v2/", {})
    named = dict(re.findall(r'([a-z]+)="([^"]*)"', answered.get("WWW-Authenticate", "")))
    return {"realm": named.get("realm", ""), "service": named.get("service", "")}


def _fetch_token(realm: str, query: str) -> str:
    service = urlsplit(realm)
    status, _, body = ask(service.netloc, "GET", f"{service.path}?{query}", {})
    assert status == 200, body
    return str(json.loads(body)["token"])


def _basic(user: str, password: str) -> dict[str, str]:
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _manifest(content: Content, reference: str = "") -> Exchange:
    """Return the exchange that gets a manifest, asking with every media type."""
    digest, media_type = content.digest, str(content.descriptor["mediaType"])
    return Exchange(
        f"/v2/{APP}/manifests/{reference or digest}",
        200,
        headers=_ALL,
        answer={
            "Content-Type": media_type,
            "Content-Length": str(len(content.blobs[digest])),
            "Docker-Content-Digest": digest,
        },
        body=content.blobs[digest],
    )


def _only(accept: str, reference: str, status: int, code: str = "", **more: str) -> Exchange:
    """Return the exchange of a client that accepts this media type alone, or names none."""
    headers = {"Accept": accept} if accept else {}
    answer = {"Content-Type": more["served"]} if "served" in more else {}
    path = f"/v2/{APP}/manifests/{reference}"
    return Exchange(path, status, code, more.get("method", "GET"), headers, answer=answer)


def _range(asked: str, first: int, last: int) -> Exchange:
    """Return the exchange that gets a part of the blob."""
    return Exchange(
        f"/v2/{APP}/blobs/{_BLOB}",
        206,
        headers={"Range": asked},
        answer={
            "Content-Range": f"bytes {first}-{last}/{_SIZE}",
            "Content-Length": str(last - first + 1),
        },
        body=_BASE.stored[first : last + 1],
    )


_BOUNDARY = "BOUNDARY"


def _ranges(asked: str, *ranges: tuple[int, int]) -> Exchange:
    """Return the exchange that gets several parts of the blob (RFC 9110, section 14.6)."""
    parts = [
        f"--{_BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{_SIZE}\r\n"
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + _BASE.stored[first : last + 1]
        for first, last in ranges
    ]
    return Exchange(
        f"/v2/{APP}/blobs/{_BLOB}",
        206,
        headers={"Range": asked},
        answer={"Content-Type": "multipart/byteranges; boundary={boundary}"},
        body=b"\r\n".join((*parts, f"--{_BOUNDARY}--\r\n".encode())),
    )


_UNKNOWN = "MANIFEST_UNKNOWN"
_BLOBS = f"/v2/{APP}/blobs"

OPEN: dict[str, Exchange] = {
    "support": Exchange("/v2/", 200),
    "no such path": Exchange(f"/v2/{APP}/nothing", 404),
    # Manifests, asked for with every media type.
    "OCI manifest by tag": _manifest(_OCI, "oci"),
    "OCI manifest by digest": _manifest(_OCI),
    "OCI index by tag": _manifest(_INDEX, "index"),
    "OCI index by digest": _manifest(_INDEX),
    "Docker manifest by tag": _manifest(_DOCKER, "docker"),
    "Docker manifest by digest": _manifest(_DOCKER),
    "Docker list by tag": _manifest(_LIST, "list"),
    "Docker list by digest": _manifest(_LIST),
    # Manifests, asked for with too little: https://github.com/distribution/distribution, file
    # registry/handlers/manifests.go, GetManifest.
    "OCI manifest by tag, HEAD, no Accept": _only("", "oci", 404, method="HEAD"),
    "OCI manifest by tag, no Accept": _only("", "oci", 404, _UNKNOWN),
    "OCI manifest by digest, no Accept": _only("", _OCI.digest, 404, _UNKNOWN),
    "OCI manifest, any Accept": _only("*/*", "oci", 404, _UNKNOWN),
    "OCI manifest, Docker's Accept": _only(_DOCKER_MANIFEST, "oci", 404, _UNKNOWN),
    "OCI manifest, weighed Accept": _only(
        f"{_OCI_MANIFEST};q=0.5", "oci", 200, served=_OCI_MANIFEST
    ),
    "OCI index by tag, HEAD, no Accept": _only("", "index", 404, method="HEAD"),
    "OCI index by tag, no Accept": _only("", "index", 404, _UNKNOWN),
    "OCI index by digest, no Accept": _only("", _INDEX.digest, 404, _UNKNOWN),
    "OCI index, a manifest's Accept": _only(_OCI_MANIFEST, "index", 404, _UNKNOWN),
    "Docker manifest by tag, HEAD, no Accept": _only("", "docker", 400, method="HEAD"),
    "Docker manifest by tag, no Accept": _only("", "docker", 400, "MANIFEST_INVALID"),
    "Docker manifest by tag, any Accept": _only("*/*", "docker", 400, "MANIFEST_INVALID"),
    "Docker manifest by digest, no Accept": _only("", _DOCKER.digest, 200, served=_DOCKER_MANIFEST),
    "Docker list by tag, HEAD, no Accept": _only("", "list", 400, method="HEAD"),
    "Docker list by tag, no Accept": _only("", "list", 400, "MANIFEST_INVALID"),
    "Docker list by tag, a manifest's Accept": _only(
        _DOCKER_MANIFEST, "list", 200, served=_DOCKER_MANIFEST
    ),
    "Docker list by digest, no Accept": _only("", _LIST.digest, 200, served=_DOCKER_LIST),
    # What is not there.
    "no such tag": Exchange(f"/v2/{APP}/manifests/none", 404, _UNKNOWN, headers=_ALL),
    "no such digest": Exchange(f"/v2/{APP}/manifests/{_ABSENT}", 404, _UNKNOWN, headers=_ALL),
    "another repository's manifest": Exchange(
        f"/v2/{OTHER}/manifests/{_OCI.digest}", 404, _UNKNOWN, headers=_ALL
    ),
    "no such repository's manifest": Exchange(
        "/v2/acme/nobody/manifests/latest", 404, _UNKNOWN, headers=_ALL
    ),
    "no such blob": Exchange(f"{_BLOBS}/{_ABSENT}", 404, "BLOB_UNKNOWN"),
    "another repository's blob": Exchange(f"/v2/{OTHER}/blobs/{_BLOB}", 404, "BLOB_UNKNOWN"),
    "no such repository's blob": Exchange(f"/v2/acme/nobody/blobs/{_BLOB}", 404, "BLOB_UNKNOWN"),
    "blob by tag": Exchange(f"{_BLOBS}/oci", 404),
    "digest too short": Exchange(f"{_BLOBS}/sha256:{'0' * 32}", 400, "DIGEST_INVALID"),
    "digest in capitals": Exchange(f"{_BLOBS}/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
    "digest of another algorithm": Exchange(f"{_BLOBS}/md5:{'0' * 32}", 400, "DIGEST_INVALID"),
    "tags": Exchange(f"/v2/{OTHER}/tags/list", 200),
    "no such repository's tags": Exchange("/v2/acme/nobody/tags/list", 404, "NAME_UNKNOWN"),
    # Blobs, whole and in part (RFC 9110, section 14.2).
    "blob": Exchange(
        f"{_BLOBS}/{_BLOB}",
        200,
        answer={"Content-Length": str(_SIZE), "Docker-Content-Digest": _BLOB},
        body=_BASE.stored,
    ),
    "blob, HEAD": Exchange(
        f"{_BLOBS}/{_BLOB}", 200, method="HEAD", answer={"Content-Length": str(_SIZE)}
    ),
    "range to the end": _range("bytes=600-", 600, _SIZE - 1),
    "range": _range("bytes=510-519", 510, 519),
    "range of the last byte": _range(f"bytes={_SIZE - 1}-", _SIZE - 1, _SIZE - 1),
    "range of the last bytes": _range("bytes=-5", _SIZE - 5, _SIZE - 1),
    "range that is too long": _range(f"bytes=510-{_SIZE * 2}", 510, _SIZE - 1),
    "several ranges": _ranges("bytes=510-519,3-3, -5", (510, 519), (3, 3), (_SIZE - 5, _SIZE - 1)),
    "ranges that overlap": _ranges("bytes=0-9,5-14", (0, 9), (5, 14)),
    "several ranges, some behind the end": _ranges(f"bytes=0-9,{_SIZE}-,20-21", (0, 9), (20, 21)),
    "several ranges, all but one behind the end": _range(f"bytes=7-9,{_SIZE}-", 7, 9),
    "several ranges, all behind the end": Exchange(
        f"{_BLOBS}/{_BLOB}", 416, headers={"Range": f"bytes={_SIZE}-,{_SIZE + 5}-"}
    ),
    "several ranges, one of them none": Exchange(
        f"{_BLOBS}/{_BLOB}", 416, headers={"Range": "bytes=0-9,x"}
    ),
    "ranges larger than the blob": Exchange(
        f"{_BLOBS}/{_BLOB}", 200, headers={"Range": "bytes=0-,0-"}, body=_BASE.stored
    ),
    "range behind the end": Exchange(
        f"{_BLOBS}/{_BLOB}",
        416,
        headers={"Range": f"bytes={_SIZE}-"},
        answer={"Content-Range": f"bytes */{_SIZE}"},
    ),
    "range backwards": Exchange(f"{_BLOBS}/{_BLOB}", 416, headers={"Range": "bytes=5-2"}),
    "range of nothing": Exchange(f"{_BLOBS}/{_BLOB}", 416, headers={"Range": "bytes=x"}),
    "range of another unit": Exchange(f"{_BLOBS}/{_BLOB}", 416, headers={"Range": "items=1-2"}),
}
"""A registry that anybody may pull from."""

_ASKS_LOGIN = {"WWW-Authenticate": 'Basic realm="{realm}"'}
_TAG = f"/v2/{APP}/manifests/oci"

BASIC: dict[str, Exchange] = {
    "support, no login": Exchange("/v2/", 401, "UNAUTHORIZED", answer=_ASKS_LOGIN),
    "no login": Exchange(_TAG, 401, "UNAUTHORIZED", headers=_ALL, answer=_ASKS_LOGIN),
    "wrong password": Exchange(
        _TAG, 401, "UNAUTHORIZED", headers=_ALL | _basic(LOGIN[0], "wrong"), answer=_ASKS_LOGIN
    ),
    "wrong user": Exchange(
        _TAG, 401, "UNAUTHORIZED", headers=_ALL | _basic("nobody", LOGIN[1]), answer=_ASKS_LOGIN
    ),
    "login": Exchange(_TAG, 200, headers=_ALL | _basic(*LOGIN)),
    "login for a blob": Exchange(f"{_BLOBS}/{_BLOB}", 200, headers=_basic(*LOGIN)),
}
"""A registry that wants `LOGIN` (RFC 7617)."""

_ASKS_TOKEN = 'Bearer realm="{realm}",service="{service}"'
_ASKS_PULL = f'{_ASKS_TOKEN},scope="repository:{APP}:pull"'


def _challenged(path: str, fault: str = "", token: str | None = None, **headers: str) -> Exchange:
    """Return the exchange that ends in a challenge for pulling `APP`."""
    challenge = _ASKS_PULL + (f',error="{fault}"' if fault else "")
    answer = {"WWW-Authenticate": challenge}
    return Exchange(path, 401, "UNAUTHORIZED", headers=_ALL | headers, token=token, answer=answer)


def _pulled(path: str, token: str) -> Exchange:
    return Exchange(path, 200, headers=_ALL, token=token)


_PULL = f"scope=repository:{APP}:pull"

BEARER: dict[str, Exchange] = {
    "support, no token": Exchange(
        "/v2/", 401, "UNAUTHORIZED", answer={"WWW-Authenticate": _ASKS_TOKEN}
    ),
    "manifest, no token": _challenged(_TAG),
    "blob, no token": _challenged(f"{_BLOBS}/{_BLOB}"),
    "tags, no token": _challenged(f"/v2/{APP}/tags/list"),
    "a login in the place of a token": _challenged(_TAG, **_basic(*LOGIN)),
    "a token nobody issued": _challenged(_TAG, "invalid_token", Authorization="Bearer opaque"),
    "token": _pulled(_TAG, f"service={{service}}&{_PULL}"),
    "token for a blob": _pulled(f"{_BLOBS}/{_BLOB}", f"service={{service}}&{_PULL}"),
    "token for tags": _pulled(f"/v2/{APP}/tags/list", f"service={{service}}&{_PULL}"),
    "token for two repositories": _pulled(
        _TAG, f"service={{service}}&scope=repository:{OTHER}:pull%20repository:{APP}:pull"
    ),
    "token for two scopes": _pulled(_TAG, f"service={{service}}&scope=registry:catalog:*&{_PULL}"),
    "token without a service": _challenged(_TAG, "invalid_token", _PULL),
    "token for another service": _challenged(
        _TAG, "invalid_token", f"service=registry.example&{_PULL}"
    ),
    "token without a scope": _challenged(_TAG, "insufficient_scope", "service={service}"),
    "token for another repository": _challenged(
        _TAG, "insufficient_scope", f"service={{service}}&scope=repository:{OTHER}:pull"
    ),
    "token for something else": _challenged(
        _TAG, "insufficient_scope", f"service={{service}}&scope=repository:{APP}:metadata"
    ),
    "any token where no repository is named": Exchange("/v2/", 200, token="service={service}"),
}
"""A registry whose token service gives anybody who asks a token for pulling."""
