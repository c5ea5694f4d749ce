"""GitHub's API, as far as it tells of webhooks: the edge to `syncd.events.redelivery`.

One request at a time, each within a bound on time and bytes.  The token goes to the configured host
alone: no redirect is followed, and of the link to a next page only its query counts.  GitHub is
taken at its word when it asks for a wait.  The token is part of no error.

Sources: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api,
https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api and
https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from syncd import __version__
from syncd.config import GitHubSettings
from syncd.errors import ConfigError, GitHubError, GitHubUnavailableError
from syncd.events import (
    Attempt,
    Hook,
    Network,
    attempts_of,
    hooks_of,
    networks_of,
)

PAGES = 20
"""Pages of a hundred that are read of a list."""
WAIT_MAX = 3600.0
"""Seconds of the longest wait that GitHub can ask for: its limits begin anew each hour."""

_PATIENCE = 30.0  # seconds for a request and the whole answer; GitHub itself gives up after 10
_ANSWER_MAX = 2 << 20  # bytes; a page of deliveries has 40 kB
_MINUTE = 60.0
_TOLD_MAX = 200  # characters of GitHub's own words
_VERSION = "2022-11-28"
_HEADERS = {
    "Accept": "application/vnd.github+json",
    "Accept-Encoding": "identity",
    "User-Agent": f"syncd/{__version__}",
    "X-GitHub-Api-Version": _VERSION,
}
_NEEDS = (
    "the token needs the permission Webhooks, read and write, of the organization or repository; a "
    "classic one needs admin:org_hook, or repo"
)


class GitHubApi:
    """What is asked with one token, or with none.  Raises GitHubError.

    `now` is the time of day in seconds, which tells how far away the end of a wait is.
    """

    def __init__(
        self,
        settings: GitHubSettings,
        token: str | None,
        session: aiohttp.ClientSession,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = settings.api
        self._token = token
        self._session = session
        self._now = now

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: GitHubSettings, token: str | None) -> AsyncIterator[Self]:
        """Give the API over connections of its own; raise ConfigError for a useless `ca_file`."""
        connector = aiohttp.TCPConnector(ssl=_trust(settings), limit=1)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=_PATIENCE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            yield cls(settings, token, session)

    async def hooks(self, place: str) -> list[Hook]:
        """Return the webhooks of a place: `orgs/ORG` or `repos/OWNER/REPOSITORY`."""
        return [hook async for page in self._pages(f"{place}/hooks") for hook in hooks_of(page)]

    async def hook(self, place: str) -> Hook:
        """Return one webhook, by its place: `orgs/ORG/hooks/ID`, for example."""
        answer, _ = await self._ask("GET", place)
        found = hooks_of([answer])
        if not found:
            raise GitHubError(f"GitHub gave something else than a webhook for {place}")
        return found[0]

    async def attempts(self, hook: str, since: datetime) -> list[Attempt]:
        """Return the attempts at a webhook's deliveries since then, the newest 2,000 at most."""
        found: list[Attempt] = []
        async for page in self._pages(f"{hook}/deliveries"):
            attempts = attempts_of(page)
            found += attempts
            if attempts and attempts[-1].at < since:  # the newest come first
                break
        return found

    async def ask_again(self, hook: str, attempt: int) -> None:
        """Have GitHub deliver again what an attempt did not."""
        await self._ask("POST", f"{hook}/deliveries/{attempt}/attempts")

    async def networks(self) -> tuple[Network, ...]:
        """Return the networks that GitHub's deliveries come from; this needs no token."""
        answer, _ = await self._ask("GET", "meta")
        return networks_of(answer)

    async def _pages(self, path: str) -> AsyncIterator[object]:
        query = "per_page=100"
        for _ in range(PAGES):
            page, following = await self._ask("GET", f"{path}?{query}")
            yield page
            if not following:
                return
            query = following

    async def _ask(self, method: str, path: str) -> tuple[Any, str]:
        """Ask once; return the answer's JSON, and the query of the next page or an empty one."""
        url = f"{self._api}/{path}"
        headers = _HEADERS | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        try:
            async with self._session.request(
                method, url, headers=headers, proxy=_proxy(url), allow_redirects=False
            ) as answer:
                status, told = answer.status, answer.headers
                link = answer.links.get("next")
                following = urlsplit(str(link["url"])).query if link else ""
                body = await _body(answer)
        except TimeoutError as exc:
            raise GitHubUnavailableError(
                f"{self._api} gave no whole answer within {_PATIENCE:g} s"
            ) from exc
        except aiohttp.ClientConnectorCertificateError as exc:
            raise GitHubError(
                f"the certificate of {self._api} is not trusted", "set github.ca_file"
            ) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            # The text may name a proxy, with its password.
            raise GitHubUnavailableError(
                f"{self._api} cannot be asked: {type(exc).__name__}"
            ) from exc
        if not 200 <= status < 300:
            raise self._fault(path.partition("?")[0], status, told, body)
        return _json(body), following

    def _fault(
        self, path: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> GitHubError:
        """Return what an answer that is no success means."""
        words = self._words(body)
        what = f"GitHub answers {status} for {path}{f': {words}' if words else ''}"
        wait = self._wait(status, headers, words)
        if wait is not None:
            return GitHubUnavailableError(what, f"it is asked again in {wait:.0f} s", wait)
        if status >= 500:
            return GitHubUnavailableError(what)
        if status == 401:
            return GitHubError(what, "the token was revoked or has expired: make another one")
        if status in (403, 404):
            return GitHubError(what, f"is the name right? {_NEEDS}")
        if 300 <= status < 400:
            return GitHubError(what, "it was renamed: write its new name into github.hook")
        return GitHubError(what)

    def _wait(self, status: int, headers: Mapping[str, str], words: str) -> float | None:
        """Return for how many seconds GitHub wants to be left alone, or None."""
        if (after := _number(headers.get("Retry-After"))) is not None and status >= 403:
            wait = after
        elif status not in (403, 429):
            return None
        elif headers.get("X-RateLimit-Remaining", "").strip() == "0":
            end = _number(headers.get("X-RateLimit-Reset"))
            wait = _MINUTE if end is None else end - self._now()
        elif status == 429 or "rate limit" in words.lower():
            wait = _MINUTE
        else:
            return None
        return min(max(wait, 1.0), WAIT_MAX)

    def _words(self, body: bytes) -> str:
        """Return GitHub's own words for a fault, as far as they are fit to be shown."""
        try:
            message = _json(body)["message"]
        except (GitHubError, KeyError, TypeError):
            return ""
        text = message if isinstance(message, str) else ""
        if self._token:
            text = text.replace(self._token, "(the token)")
        return text[:_TOLD_MAX]


def _trust(settings: GitHubSettings) -> ssl.SSLContext | bool:
    """Return what certificates are trusted; True stands for the context that aiohttp has ready."""
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"github.ca_file {settings.ca_file} cannot be used", hint="name a file in PEM"
        ) from exc


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, and nothing of ~/.netrc."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """Return a whole body; raise ValueError for one that is longer than any is."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _ANSWER_MAX:
            raise ValueError("the answer is too long")
    return bytes(body)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError) as exc:
        raise GitHubError("GitHub's answer is not JSON") from exc


def _number(text: str | None) -> float | None:
    """Return the whole number that a header holds, or None."""
    return float(text) if text and len(text) < 12 and text.isascii() and text.isdigit() else None
