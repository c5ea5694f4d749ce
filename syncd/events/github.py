"""GitHub webhook deliveries: authenticated, parsed, and reduced to what was pushed.

Sans I/O.  An authentic delivery is believed only as far as "something of this repository
changed": GitHub sends one event per manifest, may name one of several tags or none, and promises
no order.  So an event never says which digest to fetch; it says where to look again.

Sources: https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries and
https://docs.github.com/en/webhooks/webhook-events-and-payloads#package
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from syncd.errors import EventError, InvalidReferenceError, SignatureError
from syncd.events.authenticity import is_signature
from syncd.events.payload import json_object, mapping
from syncd.events.push import Ignored, PushEvent
from syncd.oci import Reference

BODY_MAX = 25 << 20
"""Bytes of a delivery that GitHub sends at the most."""

PACKAGE_EVENTS = ("package", "registry_package", "package_v2")
_ACTIONS = ("published", "updated")
_RUN_EVENT = "workflow_run"
_RUN_ACTION = "completed"
_ID_MAX = 200


@dataclass(frozen=True, slots=True)
class Delivery:
    """One authentic delivery: its id, the name of its event, and its JSON."""

    id: str
    event: str
    payload: Mapping[str, Any]


def read_delivery(headers: Mapping[str, str], body: bytes, secret: str) -> Delivery:
    """Authenticate and parse a delivery.

    Raise SignatureError unless `X-Hub-Signature-256` is the HMAC of the raw body, EventError
    when the rest is not a delivery.
    """
    scheme, _, signature = headers.get("X-Hub-Signature-256", "").partition("=")
    if not is_signature(signature, body, secret) or scheme != "sha256":
        raise SignatureError(
            "the delivery's signature is missing or wrong",
            "set the same secret in the webhook's settings on GitHub and in syncd",
        )
    delivery, event = headers.get("X-GitHub-Delivery", ""), headers.get("X-GitHub-Event", "")
    if not all(0 < len(name) <= _ID_MAX and name.isprintable() for name in (delivery, event)):
        raise EventError("the delivery lacks its X-GitHub-Delivery or X-GitHub-Event header")
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        body = parse_qs(body.decode("utf-8", "replace")).get("payload", [""])[0].encode()
    return Delivery(delivery, event, json_object(body))


def pushed_by(delivery: Delivery) -> PushEvent | Ignored:
    """Return what a delivery says was pushed, or why syncd does nothing about it."""
    payload = delivery.payload
    action = payload.get("action")
    if delivery.event in PACKAGE_EVENTS:
        if action not in _ACTIONS:
            return Ignored(f"the action {action!r:.60} pushes nothing")
        repositories = frozenset(_repositories(payload))
        if not repositories:
            return Ignored("it names no container image")
        return PushEvent(repositories)
    if delivery.event == _RUN_EVENT:
        run = mapping(payload.get("workflow_run"))
        if action != _RUN_ACTION or run.get("conclusion") != "success":
            return Ignored("the workflow run did not complete with success")
        owner = mapping(mapping(payload.get("repository")).get("owner")).get("login")
        if not isinstance(owner, str):
            return Ignored("it names no owner")
        return PushEvent(owner=owner.lower())
    return Ignored(f"syncd does nothing on the event {delivery.event!r:.60}")


def is_read(event: str, action: str) -> bool:
    """Tell whether a delivery of this event and action may say that something was pushed."""
    return (event in PACKAGE_EVENTS and action in _ACTIONS) or (event, action) == (
        _RUN_EVENT,
        _RUN_ACTION,
    )


def _repositories(payload: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names a package may be known by: GitHub fills the fields in several ways."""
    package = mapping(payload.get("package")) or mapping(payload.get("registry_package"))
    version = mapping(package.get("package_version"))
    owner = mapping(package.get("owner")).get("login")
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
