"""What a registry says when it refuses, turned into our errors, without the secrets it was sent.

Sources: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes; for
GHCR's way of asking for patience, its answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from syncd.errors import (
    DeniedError,
    NotFoundError,
    PlainHttpError,
    RegistryError,
    RegistryUnavailableError,
)

_PASSING = {408, 425, 429}
_BODY_MAX = 64 << 10
_GO_PART = r"([0-9]+(?:\.[0-9]+)?)(ns|µs|us|ms|s|m|h)"
_GO_WAIT = re.compile(rf"retry-after:\s*((?:{_GO_PART})+)")
_GO_UNITS = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LIMIT = re.compile(r"rate.?limit|rate.?exceeded|too.?many.?requests", re.IGNORECASE)
# Words that follow a scheme's name where no credentials do.
_HARMLESS = (
    r"(?:auth(?:entication|orization)?|tokens?|challenges?|realm|scheme|login|is|was|or|and)\b"
)
_CREDENTIALS = re.compile(
    rf"\b(bearer|basic|authorization)(\s*[:=]\s*|\s+)(?!(?:bearer|basic)\b|{_HARMLESS})[^\s\"',;]+",
    re.IGNORECASE,
)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,65536})", re.IGNORECASE)
_SHORTEST_SECRET = 4
_DIGITS = 9  # of the seconds in Retry-After: more are a fault of the server, not a wait


class HeadRefusedError(NotFoundError):
    """A HEAD was refused for good, without a word: only GET says why, and may be allowed.

    It never leaves this package.
    """


class StoreRefusedError(RegistryError):
    """A place that the registry redirected to refuses: the URL may have been over."""


def refusal(
    answer: requests.Response, host: str, subject: str, login: str, secrets: Collection[str] = ()
) -> RegistryError:
    """Turn a refusal into an error; a passing one knows how long the registry wants us to wait.

    `login` says in words with which credentials the registry was asked.  `secrets` are struck from
    the registry's words, as is whatever looks like credentials.
    """
    try:
        content = answer.raw.read(_BODY_MAX, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError):
        content = b""
    body = content.decode("utf-8", "replace")
    status = answer.status_code
    reason = redacted(_reason(body) or _page(content) or answer.reason or "", secrets)[:300]
    whom = f"registry {host}"
    if store := was_redirected(answer):
        whom = f"{store}, where {whom} redirects to,"
    passes = status in _PASSING or status >= 500 or (status == 403 and _is_limited(answer, body))
    if passes and not (status == 501 and answer.request.method == "HEAD"):
        return RegistryUnavailableError(
            f"{whom} answers {status} for {subject}: {reason}",
            "it is overloaded or limits us; the next trigger tries again",
            _wanted_wait(answer, body),
        )
    if store or (status == 403 and answer.history):
        return StoreRefusedError(f"{whom} answers {status} for {subject}: {reason}")
    if answer.request.method == "HEAD" and status != 401:
        return HeadRefusedError(f"{whom} answers {status} for {subject}: {reason}")
    if status in (401, 403, 404):
        denies = f"denies {subject}: not found, or no access ({login}; {status} {reason})"
        lacks = f"does not have {subject}, or gives no access ({status} {reason})"
        return (NotFoundError if status == 404 else DeniedError)(
            f"{whom} {lacks if status == 404 else denies}",
            f"check the name, and username and password_file of [[registry]] host {host!r}",
        )
    hint = ""
    if status == 400 and "https" in body.lower():
        hint = f"it speaks HTTPS: take plain_http from [[registry]] host {host!r}"
    return RegistryError(f"{whom} answers {status} for {subject}: {reason}", hint)


def was_redirected(answer: requests.Response) -> str:
    """Return the host that answered, where it is not the one that was asked; else nothing."""
    if not answer.history:
        return ""
    asked, answered = answer.history[0].url, answer.url
    if not requests.Session().should_strip_auth(asked, answered):  # type: ignore[no-untyped-call] # it has no types
        return ""
    return urlsplit(answered).hostname or "another host"


def untrusted(exc: requests.exceptions.SSLError, host: str) -> RegistryError:
    """Turn a failed TLS handshake into an error: a bad certificate, or no TLS at all."""
    words = str(exc)
    # What OpenSSL 1.1, 3.0 and 3.2 call an answer that is not TLS.
    if re.search(r"wrong.version.number|record.layer.failure|http.request", words, re.IGNORECASE):
        return PlainHttpError(
            f"registry {host} does not speak HTTPS there, but probably HTTP",
            f"if that is meant to be, set plain_http = true in [[registry]] host {host!r}",
        )
    return RegistryError(f"{host} cannot be trusted: {words}", "check its certificate")


def page_title(content: bytes) -> str | None:
    """Return the title of a web page, or None where the content is none: JSON has no `<` there."""
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return None
    title = _TITLE.search(content)
    return " ".join(title[1].decode("utf-8", "replace").split()) if title else "without a title"


def media_type_of(answer: requests.Response) -> str:
    """Return the media type that an answer says it has."""
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def is_page(answer: requests.Response, size: int) -> bool:
    """Tell whether a web page came instead of a blob of `size` bytes, which may be of any type."""
    html = answer.headers.get("Content-Type", "").lower().startswith("text/html")
    return (
        html and answer.status_code == 200 and answer.headers.get("Content-Length", "") != str(size)
    )


def redacted(text: str, secrets: Collection[str] = ()) -> str:
    """Return a registry's words with `***` for each secret and for all that looks like one."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***").replace(secret.rstrip("="), "***")
    return _CREDENTIALS.sub(r"\1\2***", text)


def _reason(body: str) -> str:
    """Return the registry's own words (distribution-spec, "Error Codes")."""
    try:
        errors = json.loads(body)["errors"]
        return "; ".join(f"{e['code']}: {e.get('message', '')}" for e in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _page(content: bytes) -> str:
    title = page_title(content)
    return "" if title is None else f"a web page ({title})"


def _is_limited(answer: requests.Response, body: str) -> bool:
    """Tell whether a 403 is one that passes: GitHub's secondary limit, Amazon's, a gateway's."""
    return "Retry-After" in answer.headers or _LIMIT.search(body) is not None


def _wanted_wait(answer: requests.Response, body: str) -> float:
    """Return the seconds to wait: from Retry-After, or from the message, as GHCR does it.

    GHCR writes Go's durations there, `1m30s` (https://pkg.go.dev/time#Duration.String).
    """
    if "Retry-After" in answer.headers:
        return _seconds(answer.headers)
    match = _GO_WAIT.search(body)
    parts = re.findall(_GO_PART, match[1]) if match else []
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)


def _seconds(headers: Mapping[str, str]) -> float:
    """Read Retry-After, a number of seconds or a date (RFC 9110, section 10.2.3).

    A date is compared with the answer's own, so that clocks that differ do not count.
    """
    text = headers["Retry-After"].strip()
    if text.isdecimal():
        return float(text) if len(text) <= _DIGITS else 0.0
    until = _moment(text)
    now = _moment(headers.get("Date", "")) or datetime.now(UTC)
    return max((until - now).total_seconds(), 0.0) if until else 0.0


def _moment(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
