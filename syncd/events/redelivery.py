"""What GitHub's API tells of a webhook: where it leads, and which of its deliveries were missed.

Sans I/O.  A delivery keeps its GUID however often GitHub attempts it, and each attempt has an id
and an entry of its own, the newest first.  A delivery is missed when no attempt at it ended well.
GitHub attempts nothing again by itself, and can be asked to for three days.

What has another type than the documentation says is passed over: nothing here raises anything but
GitHubError, whatever the JSON is.

Sources: https://docs.github.com/en/rest/repos/webhooks, https://docs.github.com/en/rest/orgs/webhooks,
https://docs.github.com/en/rest/meta/meta and
https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from typing_extensions import TypeIs

from syncd.errors import GitHubError
from syncd.events.github import is_read
from syncd.events.payload import mapping, text

KEPT = timedelta(days=3)
"""How long GitHub can be asked for a delivery."""
NETWORKS_MAX = 1000
"""Networks that deliveries come from: GitHub has six."""

_PATH = "/webhooks/github"
_ID_MAX = 1 << 63
_GUID = re.compile(r"[0-9A-Za-z-]{1,100}")
_URL_MAX = 2048
_YEARS = range(2000, 9000)  # beyond, a moment has no equal in some time zones
_TOLD_MAX = 100  # characters of what GitHub says of a failure

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook: its id where it is set up, and the URL that it calls."""

    id: int
    url: str

    @property
    def host(self) -> str:
        """The host that it calls, in lower case; empty where the URL has none."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""

    @property
    def leads_to_syncd(self) -> bool:
        """Whether it calls the path that syncd listens to."""
        try:
            return urlsplit(self.url).path.rstrip("/").endswith(_PATH)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery, as GitHub lists it."""

    id: int
    guid: str
    at: datetime
    event: str
    action: str
    status: str
    ok: bool


def hooks_of(page: object) -> list[Hook]:
    """Return the webhooks of a page of their list."""
    found = []
    for entry in _objects(page, "a list of webhooks"):
        number, url = entry.get("id"), text(mapping(entry.get("config")).get("url"))
        if _is_id(number) and url.isprintable() and len(url) <= _URL_MAX:
            found.append(Hook(number, url))
    return found


def attempts_of(page: object) -> list[Attempt]:
    """Return the attempts of a page of their list."""
    return list(filter(None, map(_attempt, _objects(page, "a list of deliveries"))))


def missed(attempts: Iterable[Attempt], since: datetime) -> list[Attempt]:
    """Return the last attempt at each delivery that was missed since, the oldest first.

    Deliveries that syncd does nothing about are not among them.
    """
    recent = [attempt for attempt in attempts if attempt.at >= since]
    well = {attempt.guid for attempt in recent if attempt.ok}
    last: dict[str, Attempt] = {}
    for attempt in sorted(recent, key=lambda each: each.at):
        if attempt.guid not in well and is_read(attempt.event, attempt.action):
            last[attempt.guid] = attempt
    return sorted(last.values(), key=lambda each: each.at)


def networks_of(meta: object) -> tuple[Network, ...]:
    """Return the networks that GitHub's deliveries come from; raise GitHubError for none."""
    listed = mapping(meta).get("hooks")
    found = tuple(_networks(listed if isinstance(listed, list) else []))
    if not found:
        raise GitHubError(
            "GitHub names no networks that deliveries come from",
            "write the networks themselves into server.hook_addresses",
        )
    return found


def _networks(listed: list[object]) -> Iterator[Network]:
    for each in listed[:NETWORKS_MAX]:
        try:
            yield ip_network(text(each))
        except ValueError:
            continue


def _attempt(entry: dict[str, object]) -> Attempt | None:
    number, guid, code = entry.get("id"), text(entry.get("guid")), entry.get("status_code")
    status = text(entry.get("status"))
    if not _is_id(number) or not _GUID.fullmatch(guid) or status in ("", "pending"):
        return None
    try:
        at = datetime.fromisoformat(text(entry.get("delivered_at")))
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    if at.year not in _YEARS:
        return None
    return Attempt(
        number,
        guid,
        at,
        text(entry.get("event")),
        text(entry.get("action")),
        "".join(filter(str.isprintable, status))[:_TOLD_MAX],
        ok=status == "OK" or (isinstance(code, int) and 200 <= code < 300),
    )


def _objects(page: object, what: str) -> Iterator[dict[str, object]]:
    if not isinstance(page, list):
        raise GitHubError(f"GitHub gave something else than {what}")
    return (entry for entry in page if isinstance(entry, dict))


def _is_id(value: object) -> TypeIs[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _ID_MAX
