"""What distribution makes of a request, decided without a connection: the double's rules.

`tests.registry_contract` holds these rules and Debian's docker-registry (distribution 2.8) to the
same answers.  Where a comment names a file, it is one of distribution's
(https://github.com/distribution/distribution).  Imports nothing but the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_WORD = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
PATH = re.compile(
    rf"/v2/(?P<name>{_WORD}(?:/{_WORD})*)"
    r"/(?:(?P<kind>manifests|blobs|referrers)/(?P<wanted>[^/]+)|tags/list)"
)
"""The paths below a repository (distribution-spec, "Pull")."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_RANGE = re.compile(r"bytes=(?:(?P<first>[0-9]+)-(?P<last>[0-9]*)|-(?P<suffix>[0-9]+))")

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
# registry/handlers/manifests.go, GetManifest.
_UNACCEPTED = {
    "application/vnd.oci.image.manifest.v1+json": (
        "OCI manifest found, but accept header does not support OCI manifests"
    ),
    "application/vnd.oci.image.index.v1+json": (
        "OCI index found, but accept header does not support OCI indexes"
    ),
}
# registry/api/errcode/register.go and registry/api/v2/errors.go.
_MESSAGES = {
    "BLOB_UNKNOWN": "blob unknown to registry",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "NAME_UNKNOWN": "repository name not known to registry",
    "UNAUTHORIZED": "authentication required",
}
_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
JSON = {"Content-Type": "application/json; charset=utf-8"}


class RefusalError(Exception):
    """A request is refused: the status, headers and body of the answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status)
        self.answer = status, headers, body

    @classmethod
    def of(cls, status: int, code: str, message: str = "", **headers: str) -> RefusalError:
        """Return a refusal in the form of the distribution-spec, "Error Codes"."""
        fault = {"code": code, "message": message or _MESSAGES[code]}
        return cls(status, JSON | headers, json.dumps({"errors": [fault]}).encode())

    @classmethod
    def no_such_path(cls) -> RefusalError:
        """Return the refusal of a path that is none of a registry's (registry/api/v2/routes.go)."""
        return cls(404, _PLAIN, b"404 page not found\n")


class Manifest(NamedTuple):
    """A manifest or an index as it is served."""

    digest: str
    media_type: str
    content: bytes


@dataclass
class Repository:
    """What was pushed under one name: nothing of it is served under another."""

    tags: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def manifest(self, wanted: str, accept: Iterable[str]) -> Manifest:
        """Return a manifest by tag or digest, in a form that the `Accept` headers name.

        Raise RefusalError.  Source: registry/handlers/manifests.go, GetManifest.
        """
        by_tag = ":" not in wanted
        if not by_tag and not _DIGEST.fullmatch(wanted):
            # distribution-spec, "Error Codes"; docker-registry itself takes it for a tag: 500.
            raise RefusalError.of(400, "DIGEST_INVALID")
        # A wildcard names nothing, and weights do not count.
        named = ",".join(accept).split(",")
        accepted = {media_type.partition(";")[0].strip() for media_type in named}
        found = self._stored(self.tags.get(wanted, wanted))
        if found.media_type in _UNACCEPTED and found.media_type not in accepted:
            raise RefusalError.of(404, "MANIFEST_UNKNOWN", _UNACCEPTED[found.media_type])
        if by_tag and found.media_type == _DOCKER_LIST and _DOCKER_LIST not in accepted:
            found = self._for_old_client(found)
        if by_tag and found.media_type == _DOCKER_MANIFEST and _DOCKER_MANIFEST not in accepted:
            raise RefusalError.of(400, "MANIFEST_INVALID")
        return found

    def blob(self, digest: str) -> bytes:
        """Return a blob's bytes; raise RefusalError.

        Sources: registry/handlers/blob.go; image-spec, descriptor.md, "Registered Algorithms".
        """
        if ":" not in digest:
            raise RefusalError.no_such_path()
        if not _DIGEST.fullmatch(digest):
            raise RefusalError.of(400, "DIGEST_INVALID")
        if digest not in self.blobs:
            raise RefusalError.of(404, "BLOB_UNKNOWN")
        return self.blobs[digest]

    def referrers(self, subject: str) -> list[dict[str, Any]]:
        """Return the descriptors of the manifests that refer to `subject`; raise RefusalError.

        Source: distribution-spec, "Listing Referrers".
        """
        if not _DIGEST.fullmatch(subject):
            raise RefusalError.of(400, "DIGEST_INVALID")
        found = []
        for digest, media_type in self.types.items():
            content = self.blobs.get(digest, b"{}")
            fields = json.loads(content)
            if (fields.get("subject") or {}).get("digest") != subject:
                continue
            kind = fields.get("artifactType") or fields.get("config", {}).get("mediaType", "")
            found.append(
                {
                    "mediaType": media_type,
                    "digest": digest,
                    "size": len(content),
                    "artifactType": kind,
                    "annotations": fields.get("annotations", {}),
                }
            )
        return found

    def _stored(self, digest: str) -> Manifest:
        if digest not in self.types or digest not in self.blobs:
            raise RefusalError.of(404, "MANIFEST_UNKNOWN")
        return Manifest(digest, self.types[digest], self.blobs[digest])

    def _for_old_client(self, listed: Manifest) -> Manifest:
        """Return the manifest for linux/amd64, which stands for a list."""
        for entry in json.loads(listed.content)["manifests"]:
            if {"os": "linux", "architecture": "amd64"}.items() <= entry["platform"].items():
                return self._stored(entry["digest"])
        raise RefusalError.of(404, "MANIFEST_UNKNOWN")


@dataclass(frozen=True)
class Token:
    """What a token was issued for: the claims `aud` and `access` of distribution's tokens.

    Source: https://distribution.github.io/distribution/spec/auth/jwt/
    """

    service: str
    scopes: frozenset[str]

    def fault(self, service: str, repository: str) -> str:
        """Return what is wrong with the token for pulling here, or nothing.

        Source: registry/auth/token/accesscontroller.go, Authorized and challengeParams.
        """
        if self.service != service:
            return "invalid_token"
        if repository and not any(_may_pull(scope, repository) for scope in self.scopes):
            return "insufficient_scope"
        return ""


def byte_ranges(asked: str, size: int) -> list[tuple[int, int]]:
    """Return the first and last bytes of what a Range header asks for; none means the whole.

    Ranges behind the end are passed over while there is another one; ranges that are together
    larger than the content are most likely an attack, or a client's fault.  Raise RefusalError.

    Sources: RFC 9110, sections 14.1.2 and 15.5.17; Go's net/http/fs.go, parseRange and
    serveContent.
    """
    unit, _, spans = asked.partition("=")
    found = [_RANGE.fullmatch(f"{unit}={span.strip()}") for span in spans.split(",")]
    ranges = []
    for one in found:
        if one is None or (one["last"] and int(one["last"]) < int(one["first"])):
            raise RefusalError(416, _PLAIN, b"invalid range\n")
        first = max(size - int(one["suffix"]), 0) if one["suffix"] else int(one["first"])
        if first < size:
            ranges.append((first, min(int(one["last"] or size - 1), size - 1)))
    if not ranges:
        headers = _PLAIN | {"Content-Range": f"bytes */{size}"}
        raise RefusalError(416, headers, b"invalid range: failed to overlap\n")
    return ranges if sum(last + 1 - first for first, last in ranges) <= size else []


BOUNDARY = "18c8c237f27e674d9bf35861787f85bc59f5517a8756a85ad70f71c6b97b"


def multipart(content: bytes, ranges: Iterable[tuple[int, int]], shift: int = 0) -> bytes:
    """Return several ranges as one body, as Go's mime/multipart writes it (RFC 2046, 5.1.1).

    With `shift` each has the bytes that lie so many bytes before it.
    """
    body = b""
    for first, last in ranges:
        head = (
            f"\r\n--{BOUNDARY}\r\nContent-Range: bytes {first}-{last}/{len(content)}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body += head.encode() + content[first - shift : last + 1 - shift]
    return body.removeprefix(b"\r\n") + f"\r\n--{BOUNDARY}--\r\n".encode()


def _may_pull(scope: str, repository: str) -> bool:
    """Tell what a scope covers (https://distribution.github.io/distribution/spec/auth/scope/)."""
    resource, _, actions = scope.rpartition(":")
    return resource == f"repository:{repository}" and "pull" in actions.split(",")
