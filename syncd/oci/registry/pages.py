"""Lists that a registry answers in pages: tags, and what refers to a manifest.

Each page names the next one, always on the same host, and there is an end to them.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Listing Tags"; RFC
8288, `rel="next"`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from syncd.errors import RegistryError


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was served, and the URL of its next page if it has one."""

    content: bytes
    following: str | None


def pages(
    read: Callable[[str, str], Document], url: str, subject: str, most: int
) -> Iterator[bytes]:
    """Yield the pages of a list, `most` of them at most; `read` takes a URL and `subject`.

    Raise RegistryError for a list that goes on elsewhere or has more pages, and what `read` raises.
    """
    first = urlsplit(url)
    for _ in range(most):
        page = read(url, subject)
        yield page.content
        if not page.following:
            return
        try:
            url = urljoin(url, page.following)
            stays = urlsplit(url)[:2] == first[:2]
        except ValueError:
            stays = False
        if not stays:
            raise RegistryError(f"{first.hostname} continues {subject} on another host")
    raise RegistryError(f"{subject} have more pages than {most}")


def tags_in(page: bytes, host: str, repository: str) -> list[object]:
    """Return what a page of a list of tags names; raise RegistryError where it is none."""
    try:
        tags = json.loads(page)["tags"] or []
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise RegistryError(f"{host} answers no list of tags for {repository}") from exc
    if not isinstance(tags, list):
        raise RegistryError(f"{host} answers no list of tags for {repository}")
    return tags
