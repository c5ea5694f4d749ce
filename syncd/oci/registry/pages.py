"""Lists that a registry answers in pages: tags, and what refers to a manifest.

Each page names the next one, always on the same host, and there is an end to them.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Listing Tags"; RFC
8288, `rel="next"`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from syncd.errors import RegistryError
from syncd.oci.reference import is_tag

_TAGS_MAX = 200_000
_TOLD = 3  # things that are no tags


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


class Tags(NamedTuple):
    """The tags of a list, each once; how many other things it names, and the first of these."""

    found: list[str]
    odd: int
    first_odd: list[str]


def tags_of(listed: Iterable[bytes], host: str, repository: str) -> Tags:
    """Return what the pages of a list of tags name; what the grammar does not allow is no tag.

    Raise RegistryError where a page is no such list, or all name more than 200,000 tags.
    """
    found: dict[str, None] = {}
    odd, first_odd = 0, []
    for tag in chain.from_iterable(_tags_in(page, host, repository) for page in listed):
        if isinstance(tag, str) and is_tag(tag):
            found[tag] = None
        else:
            odd += 1
            if odd <= _TOLD:
                first_odd.append(repr(tag))
        if len(found) + odd > _TAGS_MAX:
            raise RegistryError(f"{repository} has more than {_TAGS_MAX} tags")
    return Tags(list(found), odd, first_odd)


def _tags_in(page: bytes, host: str, repository: str) -> list[object]:
    try:
        tags = json.loads(page)["tags"] or []
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise RegistryError(f"{host} answers no list of tags for {repository}") from exc
    if not isinstance(tags, list):
        raise RegistryError(f"{host} answers no list of tags for {repository}")
    return tags
