"""A container registry over HTTP: what a tag means now, documents, and blobs that do not break.

oras speaks to the registry and carries the tokens; this door adds what it leaves out: time-outs
on everything, backoff on faults that can pass, resumption of a blob in mid-stream, and errors
that say what to do.  It never reads a tag twice on its own account, and never verifies content:
that is done where bytes are kept.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md and, for tokens,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import oras.provider
import requests
import urllib3.exceptions

from syncd.errors import (
    InvalidReferenceError,
    NotFoundError,
    RegistryError,
    RegistryUnavailableError,
    VerificationError,
)
from syncd.job import Pause
from syncd.limits import Limits
from syncd.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Reader,
)
from syncd.reference import Digest, Reference
from syncd.registry.auth import client
from syncd.registry.refusals import Passing, refusal
from syncd.settings import RegistrySettings

ATTEMPTS = 5
_LONGEST_WAIT = 60.0
_TAG_PAGES_MAX = 200
_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))


class Registry:
    """One repository of a registry, as a source of images.  Safe to use from several threads.

    `pause` waits between attempts, so that a daemon that stops need not wait it out.
    """

    def __init__(
        self,
        name: Reference,
        settings: RegistrySettings,
        limits: Limits | None = None,
        pause: Pause = time.sleep,
    ) -> None:
        host = "registry-1.docker.io" if name.registry == "docker.io" else name.registry
        self._name = name.name
        self._settings = settings
        self._limits = limits or Limits()
        self._host = host
        self._base = f"{'http' if settings.plain_http else 'https'}://{host}/v2/{name.repository}"
        self._pause = pause
        self._clients = threading.local()

    def resolve(self, reference: Reference) -> Descriptor:
        """Return what a tag or digest means now: its descriptor, by one HEAD request.

        Raise NotFoundError, RegistryUnavailableError or RegistryError.
        """
        wanted = str(reference.digest or reference.tag or "latest")
        url = f"{self._base}/manifests/{wanted}"
        with self._ask("HEAD", url, str(reference), {"Accept": _ACCEPT}) as answer:
            headers, media_type = answer.headers, _media_type(answer)
        digest, size = headers.get("Docker-Content-Digest", ""), headers.get("Content-Length", "")
        try:
            found = Descriptor(media_type, Digest.parse(digest), int(size))
        except (InvalidReferenceError, ValueError):
            found = None
        if found is None or not media_type:
            found = self._resolve_by_reading(url, str(reference))
        if reference.digest is not None and found.digest != reference.digest:
            raise VerificationError(f"{self._host} answers {found.digest} for {reference}")
        return found

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified against its descriptor."""
        kind = "manifests" if wanted.media_type in (*INDEX_TYPES, *MANIFEST_TYPES) else "blobs"
        url = f"{self._base}/{kind}/{wanted.digest}"
        return wanted.verify(self._read(url, f"{self._name}@{wanted.digest}").content)

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on; the reader reconnects by itself when a stream breaks."""
        return _Blob(self, wanted, offset)

    def tags(self) -> list[str]:
        """Return all tags of the repository (distribution-spec, "Listing Tags")."""
        tags: list[str] = []
        url = f"{self._base}/tags/list?n=1000"
        for _ in range(_TAG_PAGES_MAX):
            page = self._read(url, f"the tags of {self._name}")
            tags += self._tags_of(page.content)
            if not page.following:
                return tags
            url = urljoin(url, page.following)
            if urlsplit(url)[:2] != urlsplit(self._base)[:2]:
                raise RegistryError(f"{self._host} continues its list of tags on another host")
        raise RegistryError(f"{self._name} has more pages of tags than {_TAG_PAGES_MAX}")

    def open_blob(self, wanted: Descriptor, offset: int) -> requests.Response:
        """Ask for a blob's bytes from `offset` on, as one streaming response."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        url = f"{self._base}/blobs/{wanted.digest}"
        return self._ask("GET", url, f"{self._name}@{wanted.digest}", headers)

    def wait(self, attempt: int, least: float = 0.0) -> None:
        """Wait before attempt number `attempt`, longer each time, at least `least` seconds."""
        backoff = 0.25 * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - no secret depends on it
        self._pause(min(max(backoff, least), _LONGEST_WAIT))

    def _resolve_by_reading(self, url: str, subject: str) -> Descriptor:
        """Resolve where HEAD says too little: the specification does not oblige it to."""
        read = self._read(url, subject)
        return Descriptor(read.media_type, Digest.of(read.content), len(read.content))

    def _tags_of(self, content: bytes) -> list[str]:
        try:
            tags = json.loads(content)["tags"] or []
            return [tag for tag in tags if isinstance(tag, str)]
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise RegistryError(f"{self._host} answers no list of tags for {self._name}") from exc

    def _read(self, url: str, subject: str) -> _Document:
        """Read a document whole, asking for it again when it breaks off."""
        for attempt in range(ATTEMPTS):
            with self._ask("GET", url, subject, {"Accept": _ACCEPT}) as answer:
                try:
                    return _Document(
                        self._body(answer),
                        _media_type(answer),
                        answer.links.get("next", {}).get("url"),
                    )
                except RegistryUnavailableError:
                    if attempt == ATTEMPTS - 1:
                        raise
            self.wait(attempt)
        raise AssertionError("the last attempt returns or raises")

    def _body(self, answer: requests.Response) -> bytes:
        try:
            content: bytes = answer.raw.read(self._limits.document + 1, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise RegistryUnavailableError(f"{self._host} broke off: {exc}") from exc
        self._limits.check("document", len(content), f"the size of a document of {self._host}")
        return content

    def _ask(
        self, method: str, url: str, subject: str, headers: Mapping[str, str]
    ) -> requests.Response:
        """Make a request until it is answered for good; return a streaming response."""
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = self._request(method, url, headers)
            except Passing as exc:
                if last:
                    raise exc.fault from exc
                self.wait(attempt, exc.least)
                continue
            except requests.exceptions.SSLError as exc:
                raise RegistryError(
                    f"{self._host} cannot be trusted: {exc}", "check its certificate"
                ) from exc
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
                if last:
                    raise RegistryUnavailableError(
                        f"registry {self._host} cannot be reached for {subject}: {_cause(exc)}",
                        "check the network and the registry's state; the next trigger tries again",
                    ) from exc
                self.wait(attempt)
                continue
            if answer.ok:
                return answer
            fault, least = refusal(answer, self._host, subject)
            answer.close()
            if last or not fault.temporary:
                raise fault
            self.wait(attempt, least)
        raise AssertionError("the last attempt returns or raises")

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Make one request through oras, without its own retries (131 s of sleep)."""
        client = self._client()
        try:
            answer: requests.Response = oras.provider.Registry.do_request.__wrapped__(
                client, url, method, headers=dict(headers), stream=True
            )
        except ValueError as exc:
            if isinstance(exc, requests.RequestException):
                raise
            raise self._denied(url) from exc
        return answer

    def _denied(self, url: str) -> NotFoundError:
        has = "the credentials are not accepted" if self._settings.username else "no credentials"
        return NotFoundError(
            f"registry {self._host} denies {urlsplit(url).path}: not found, or no access ({has})",
            f"check the name, and username and password_file of [[registry]] host {self._host!r}",
        )

    def _client(self) -> Any:
        """Return this thread's oras client: its token is state that must not be shared."""
        if not hasattr(self._clients, "client"):
            self._clients.client = client(self._host, self._settings)
        return self._clients.client


@dataclass(frozen=True, slots=True)
class _Document:
    """A document as it was served, and the URL of its next page if it has one."""

    content: bytes
    media_type: str
    following: str | None


class _Blob:
    """A blob's bytes, through as many connections as it takes."""

    def __init__(self, registry: Registry, wanted: Descriptor, offset: int) -> None:
        self._registry = registry
        self._wanted = wanted
        self._at = offset
        self._failures = 0
        self._answer: requests.Response | None = None

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; raise RegistryUnavailableError when no attempt gets further."""
        while self._at < self._wanted.size:
            try:
                if self._answer is None:
                    self._answer = self._open()
                data: bytes = self._answer.raw.read(size, decode_content=False)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
                self._broken(exc)
                continue
            if data:
                self._at += len(data)
                self._failures = 0
                return data
            self._broken(None)
        return b""

    def close(self) -> None:
        """Let go of the connection."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _open(self) -> requests.Response:
        answer = self._registry.open_blob(self._wanted, self._at)
        if self._at and answer.status_code == 200:
            # The server does not do ranges: pass over what is here already.
            left = self._at
            while left and (passed := answer.raw.read(min(left, 1 << 20), decode_content=False)):
                left -= len(passed)
        elif self._at and not answer.headers.get("Content-Range", "").startswith(
            f"bytes {self._at}-"
        ):
            answer.close()
            raise RegistryError(f"the registry resumes {self._wanted.digest} at a wrong place")
        return answer

    def _broken(self, exc: Exception | None) -> None:
        self.close()
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise RegistryUnavailableError(
                f"blob {self._wanted.digest} broke off {self._failures} times at byte {self._at}: "
                f"{_cause(exc) if exc else 'the stream ended early'}",
                "check the network; the next trigger resumes it",
            ) from exc
        self._registry.wait(self._failures)


def _media_type(answer: requests.Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _cause(exc: BaseException) -> str:
    """Return the innermost reason: requests wraps it three times."""
    while True:
        inner = exc.__cause__ or exc.__context__
        if inner is None:
            return f"{exc}" or type(exc).__name__
        exc = inner
