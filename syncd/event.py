"""GitHub webhook deliveries: authenticated, parsed, and reduced to what was pushed.

Sans I/O.  An authentic delivery is believed only as far as "something of this repository
changed": GitHub sends one event per manifest, may name one of several tags or none, and promises
no order.  So an event never says which digest to fetch; it says where to look again.

Sources: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries and
https://docs.github.com/en/webhooks/webhook-events-and-payloads#package
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from syncd.errors import EventError, InvalidReferenceError
from syncd.reference import Reference

BODY_MAX = 25 << 20
"""Bytes of a delivery that GitHub sends at the most."""

PACKAGE_EVENTS = ("package", "registry_package", "package_v2")
_ACTIONS = ("published", "updated")
_ID_MAX = 200


class SignatureError(EventError):
    """A delivery that GitHub did not sign with our secret."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One authentic delivery: its id, the name of its event, and its JSON."""

    id: str
    event: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PushEvent:
    """What a delivery says was pushed.

    `repositories` are names without tag that it may mean; `owner`, when set, stands for every
    repository of that owner (a build finished, whatever it pushed).
    """

    repositories: frozenset[str] = frozenset()
    owner: str | None = None

    def concerns(self, repository: Reference) -> bool:
        """Tell whether this repository should be looked at again."""
        if repository.name in self.repositories:
            return True
        return self.owner is not None and repository.repository.split("/")[0] == self.owner


def read(headers: Mapping[str, str], body: bytes, secret: str) -> Delivery:
    """Authenticate and parse a delivery.

    Raise SignatureError unless `X-Hub-Signature-256` is the HMAC of the raw body, EventError
    when the rest is not a delivery.
    """
    signature = headers.get("X-Hub-Signature-256", "")
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    # A header may hold any bytes; they come as surrogates (PEP 383).
    given = signature.encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(given, expected.encode()):
        raise SignatureError(
            "the delivery's signature is missing or wrong",
            "set the same secret in the webhook's settings on GitHub and in syncd",
        )
    delivery, event = headers.get("X-GitHub-Delivery", ""), headers.get("X-GitHub-Event", "")
    if not all(0 < len(name) <= _ID_MAX and name.isprintable() for name in (delivery, event)):
        raise EventError("the delivery lacks its X-GitHub-Delivery or X-GitHub-Event header")
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        body = parse_qs(body.decode("utf-8", "replace")).get("payload", [""])[0].encode()
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise EventError(f"the delivery's body is not JSON: {exc!s:.100}") from exc
    if not isinstance(payload, dict):
        raise EventError("the delivery's body is not a JSON object")
    return Delivery(delivery, event, payload)


def pushed(delivery: Delivery) -> PushEvent | str:
    """Return what a delivery says was pushed, or the reason why it says nothing of the kind."""
    payload = delivery.payload
    action = payload.get("action")
    if delivery.event in PACKAGE_EVENTS:
        if action not in _ACTIONS:
            return f"the action {action!r:.60} pushes nothing"
        repositories = frozenset(_repositories(payload))
        return PushEvent(repositories) if repositories else "it names no container image"
    if delivery.event == "workflow_run":
        run = _mapping(payload.get("workflow_run"))
        if action != "completed" or run.get("conclusion") != "success":
            return "the workflow run did not complete with success"
        owner = _mapping(_mapping(payload.get("repository")).get("owner")).get("login")
        return PushEvent(owner=owner.lower()) if isinstance(owner, str) else "it names no owner"
    return f"syncd does nothing on the event {delivery.event!r:.60}"


def _repositories(payload: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names a package may be known by: GitHub fills the fields in several ways."""
    package = _mapping(payload.get("package")) or _mapping(payload.get("registry_package"))
    version = _mapping(package.get("package_version"))
    owner = _mapping(package.get("owner")).get("login")
    name, namespace = package.get("name"), package.get("namespace")
    for guess in (
        version.get("package_url"),
        f"ghcr.io/{owner}/{name}",
        f"ghcr.io/{namespace}/{name}",
        f"ghcr.io/{namespace}",
    ):
        if not isinstance(guess, str) or "None" in guess.split("/"):
            continue
        where = guess.removeprefix("https://").partition("@")[0]
        where = where.removesuffix(":").lower()
        try:
            yield Reference.parse(where).name
        except InvalidReferenceError:
            continue


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
