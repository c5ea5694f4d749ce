"""A container registry over HTTP: what a tag means now, documents, and blobs that do not break.

oras makes the requests; this door adds what it leaves out: challenges answered by RFC 9110,
time-outs on everything, backoff on faults that can pass, streams from an offset on, and errors that
say what to do.  It never reads a tag twice on its own account, and never verifies content:
that is done where bytes are kept.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md and, for tokens,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import oras.provider
import requests
import structlog
import urllib3.exceptions

from syncd.errors import (
    InvalidReferenceError,
    RegistryError,
    RegistryUnavailableError,
    VerificationError,
)
from syncd.limits import Limits
from syncd.oci.access import RegistryAccess, Unmirrored
from syncd.oci.backoff import LONGEST_WAIT, backoff
from syncd.oci.document import INDEX_TYPES, MANIFEST_TYPES, document_type, parse_json
from syncd.oci.manifest import UNKNOWN_SIZE, Descriptor, Reader
from syncd.oci.range_reader import Range
from syncd.oci.reference import Digest, Reference
from syncd.oci.registry.auth import Logins
from syncd.oci.registry.byteranges import opened
from syncd.oci.registry.clock import clock_skew
from syncd.oci.registry.deadline import deadline, time_left
from syncd.oci.registry.errors import (
    HeadRefusedError,
    StoreRefusedError,
    is_page,
    media_type_of,
    page_title,
    untrusted,
)
from syncd.oci.registry.large import LARGE, turn_of
from syncd.oci.registry.pages import Document, pages, tags_of
from syncd.oci.registry.referrers import PAGES_MAX, entries, fallback_tag
from syncd.oci.registry.session import Timeouts, client
from syncd.oci.registry.stream import REASON_MAX, BlobStream, cause_of, starts_at
from syncd.oci.traffic import Traffic, Unwatched
from syncd.progress import Pause

_PAGE_HINT = "check the host's name, and whether a login page or a proxy stands before it"
_PASSED_AT_A_TIME = 1 << 20
_TAG_PAGES_MAX = 200
# What requests and the standard library raise for an address or a header that is none.
_NOWHERE = (ValueError, requests.exceptions.TooManyRedirects)
_ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))

log = structlog.stdlib.get_logger()


class Registry(Unmirrored):
    """One repository of a registry, as a source of images.  Safe to use from several threads.

    `pause` waits between attempts, so that a daemon that stops need not wait it out.  `timeouts`
    bounds the waits of each attempt, how many attempts there are, and each look as a whole.
    `logins` keeps tokens for further objects of the same repository, and the waits that registries
    ask for: while one lasts that is too long, RegistryUnavailableError is raised.  `traffic` hears
    of every request.  With `public` only public addresses are connected to.
    """

    def __init__(
        self,
        name: Reference,
        access: RegistryAccess,
        limits: Limits | None = None,
        pause: Pause = time.sleep,
        *,
        timeouts: Timeouts | None = None,
        logins: Logins | None = None,
        traffic: Traffic | None = None,
        public: bool = False,
    ) -> None:
        host = "registry-1.docker.io" if name.registry == "docker.io" else name.registry
        self._name = name.name
        self._access = access
        self._limits = limits or Limits()
        self._timeouts = timeouts or Timeouts()
        self._host = host
        self._base = f"{'http' if access.plain_http else 'https'}://{host}/v2/{name.repository}"
        self._pause = pause
        self._traffic = traffic or Unwatched()
        self._login = (logins or Logins()).of(access, host, name.repository, public=public)
        self._skew: timedelta | None = None

    @property
    def skew(self) -> timedelta | None:
        """How far the clock of whoever answered last is ahead of this host's; None: not told."""
        return self._skew

    def resolve(self, reference: Reference) -> Descriptor:
        """Return what a tag or digest means now: its descriptor, by one HEAD request.

        Raise NotFoundError, RegistryUnavailableError or RegistryError; ImageError where it had to
        be read and is neither an index nor a manifest.
        """
        url = self._manifest(reference)
        with deadline(self._timeouts.look):
            found = self._resolve_by_head(url, str(reference))
            if found is None:
                algorithm = reference.digest.algorithm if reference.digest else "sha256"
                found = self._resolve_by_reading(url, str(reference), algorithm)
        if reference.digest is not None and found.digest != reference.digest:
            raise VerificationError(f"{self._host} answers {found.digest} for {reference}")
        return found

    def tagged(self, reference: Reference) -> bytes:
        """Return the document that a tag means now, by one GET request; raise as `resolve`."""
        with deadline(self._timeouts.look):
            content = self._read(self._manifest(reference), str(reference)).content
        document_type(parse_json(content, str(reference)), str(reference))
        return content

    def document(self, wanted: Descriptor) -> bytes:
        """Return a manifest, index or config, verified against its descriptor."""
        kind = "manifests" if wanted.media_type in (*INDEX_TYPES, *MANIFEST_TYPES) else "blobs"
        url = f"{self._base}/{kind}/{wanted.digest}"
        with deadline(self._timeouts.look):
            return wanted.verify(self._read(url, f"{self._name}@{wanted.digest}").content)

    def blob(self, wanted: Descriptor, offset: int = 0) -> Reader:
        """Open a blob from `offset` on, through one connection.

        The reader raises BrokenStreamError when the connection breaks, or ends too early.
        """
        answer = self._open(wanted, f"{offset}-" if offset else "")
        with ExitStack() as on_failure:
            on_failure.callback(answer.close)
            if is_page(answer, wanted.size):
                raise RegistryError(
                    f"{self._host} answers a web page instead of the blob {wanted.digest}",
                    _PAGE_HINT,
                )
            if offset and answer.status_code == 200:  # the server does not do ranges
                passed = self._stream(answer, offset)
                while passed.left:
                    passed.read(min(passed.left, _PASSED_AT_A_TIME))
            elif offset and not starts_at(answer, offset):
                raise RegistryError(f"the registry resumes {wanted.digest} at a wrong place")
            on_failure.pop_all()
        return self._stream(answer, wanted.size - offset)

    def ranges(self, wanted: Descriptor, ranges: Sequence[Range]) -> Reader:
        """Open ranges of a blob by one request, as one stream; raise NoRangesError for others."""
        return opened(wanted, ranges, self._login, partial(self._open, wanted), self._stream)

    def _manifest(self, reference: Reference) -> str:
        return f"{self._base}/manifests/{reference.digest or reference.tag or 'latest'}"

    def _open(self, wanted: Descriptor, span: str) -> requests.Response:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={span}"} if span else {})
        url = f"{self._base}/blobs/{wanted.digest}"
        with deadline(self._timeouts.look):
            return self._ask("GET", url, f"{self._name}@{wanted.digest}", headers)

    def _stream(self, answer: requests.Response, left: int) -> BlobStream:
        return BlobStream(
            answer,
            left,
            self._login.redacted,
            slowest=self._timeouts.slowest,
            received=self._traffic.received,
        )

    def tags(self) -> list[str]:
        """Return all tags of the repository, each once (distribution-spec, "Listing Tags").

        What the grammar of the specification does not allow is no tag: it is skipped, and told.
        """
        with deadline(self._timeouts.look):
            url = f"{self._base}/tags/list?n=1000"
            listed = pages(self._read, url, f"the tags of {self._name}", _TAG_PAGES_MAX)
            tags = tags_of(listed, self._host, self._name)
        if tags.odd:
            first = [self._login.redacted(text)[:100] for text in tags.first_odd]
            log.warning("tags skipped", repository=self._name, number=tags.odd, first=first)
        return tags.found

    def referrers(self, subject: Digest) -> list[Descriptor]:
        """Return what refers to a manifest, as far as the registry lists it.

        Raise RegistryUnavailableError, and RegistryError or ImageError where the answer is no list.
        """
        place = f"the referrers of {self._name}@{subject}"
        url = f"{self._base}/referrers/{subject}"
        tag = f"{self._base}/manifests/{fallback_tag(subject)}"
        with deadline(self._timeouts.look):
            return entries(
                pages(self._read, url, place, PAGES_MAX), pages(self._read, tag, place, 1), place
            )

    def _wait(self, attempt: int, fault: RegistryUnavailableError) -> None:
        """Wait after attempt number `attempt`, longer each time, and as the registry asks.

        Raise the fault where there is no further attempt, or no time to wait for it.
        """
        asked = max(fault.retry_after, self._login.wait_left())
        if attempt == self._timeouts.attempts - 1 or asked >= min(time_left(), LONGEST_WAIT):
            raise fault
        self._pause(backoff(attempt, asked))

    def _resolve_by_head(self, url: str, subject: str) -> Descriptor | None:
        """Resolve by HEAD; None where HEAD says too little, or is not allowed.

        The length that it says is no evidence: it may be that of an encoded answer, or 0
        (RFC 9110, sections 8.6 and 9.3.2).
        """
        try:
            headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity"}
            with self._ask("HEAD", url, subject, headers) as answer:
                answer.raw.drain_conn()  # else the connection would not be kept
                digest = answer.headers.get("Docker-Content-Digest", "")
                media_type = media_type_of(answer)
        except (HeadRefusedError, StoreRefusedError):
            # A store's URL may be signed for GET only.
            return None
        if media_type not in (*INDEX_TYPES, *MANIFEST_TYPES):
            return None
        try:
            return Descriptor(media_type, Digest.parse(digest), UNKNOWN_SIZE)
        except InvalidReferenceError:
            return None

    def _resolve_by_reading(self, url: str, subject: str, algorithm: str) -> Descriptor:
        """Resolve where HEAD says too little: the specification does not oblige it to."""
        content = self._read(url, subject).content
        digest = Digest.of(content, algorithm)
        place = f"manifest {digest} of {subject}"
        # Its own words count: static file servers and proxies call it application/json.
        media_type = document_type(parse_json(content, place), place)
        return Descriptor(media_type, digest, len(content))

    def _read(self, url: str, subject: str) -> Document:
        """Read a document whole, asking for it again when it breaks off."""
        for attempt in range(self._timeouts.attempts):
            with self._ask("GET", url, subject, {"Accept": _ACCEPT}) as answer:
                try:
                    return Document(
                        self._body(answer, subject),
                        answer.links.get("next", {}).get("url"),
                    )
                except RegistryUnavailableError as exc:
                    fault = exc
            self._wait(attempt, fault)
        raise AssertionError("the last attempt returns or raises")

    def _body(self, answer: requests.Response, subject: str) -> bytes:
        try:
            content: bytes = answer.raw.read(LARGE, decode_content=True)
            if len(content) == LARGE:
                with turn_of(self._host):
                    most = self._limits.document.maximum + 1
                    content += answer.raw.read(most - LARGE, decode_content=True)
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise RegistryUnavailableError(f"{self._host} broke off: {self._cause(exc)}") from exc
        self._traffic.received(len(content))
        self._limits.document.check(len(content), f"the size of a document of {self._host}")
        if (title := page_title(content)) is not None:
            raise RegistryError(
                f"{self._host} answers a web page ({self._login.redacted(title)[:200]}) instead of "
                f"{subject}",
                _PAGE_HINT,
            )
        return content

    def _ask(
        self, method: str, url: str, subject: str, headers: Mapping[str, str]
    ) -> requests.Response:
        """Make a request until it is answered for good; return a streaming response."""
        may_redirect_anew = True
        self._keep_away(subject)
        for attempt in range(self._timeouts.attempts):
            try:
                answer = self._request(method, url, subject, headers)
                if answer.ok:
                    return answer
                raise self._login.fault(answer, subject)
            except RegistryUnavailableError as exc:
                self._wait(attempt, exc)
            except StoreRefusedError:
                # The URL that the registry redirected to is signed for a time, which was over.
                if not may_redirect_anew or attempt == self._timeouts.attempts - 1:
                    raise
                may_redirect_anew = False
            except requests.exceptions.SSLError as exc:
                raise untrusted(exc, self._host) from exc
            except _NOWHERE as exc:
                raise RegistryError(
                    f"registry {self._host} leads nowhere for {subject}: {self._cause(exc)}"
                ) from exc
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
                fault = RegistryUnavailableError(
                    f"registry {self._host} cannot be reached for {subject}: {self._cause(exc)}",
                    "check the network and the registry's state; the next trigger tries again",
                )
                fault.__cause__ = exc
                self._wait(attempt, fault)
        raise AssertionError("the last attempt returns or raises")

    def _keep_away(self, subject: str) -> None:
        """Wait out the time for which the registry asked to be left alone, if that is short."""
        left = self._login.wait_left()
        if left >= min(time_left(), LONGEST_WAIT):
            raise RegistryUnavailableError(
                f"registry {self._host} asked to be left alone for another {left:.0f} s, so it is "
                f"not asked for {subject}",
                "the next trigger after that tries again",
                left,
            )
        if left:
            self._pause(backoff(0, left))

    def _request(
        self, method: str, url: str, subject: str, headers: Mapping[str, str]
    ) -> requests.Response:
        """Make one request through oras, without its own retries (131 s of sleep)."""
        with client(self._host, self._access, self._login, self._timeouts, self._traffic) as lent:
            lent.auth.begin(subject)
            answer: requests.Response = oras.provider.Registry.do_request.__wrapped__(
                lent, url, method, headers=dict(headers), stream=True
            )
        self._skew = clock_skew(answer.headers, datetime.now(UTC))
        return answer

    def _cause(self, exc: BaseException) -> str:
        """Return the innermost reason, without secrets: it may quote what the registry sent."""
        return self._login.redacted(cause_of(exc))[:REASON_MAX]
