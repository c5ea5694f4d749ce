"""The form for everything else: a script that knows what it pushed, and can sign.

    POST /webhooks/generic
    X-Syncd-Signature-256: sha256=HMAC
    X-Syncd-Delivery: ID            (may be left out)

    {"repository": "registry.example.org/team/app", "tag": "latest"}

The signature is over the raw body.  The tag may be left out: an event says where to look again, and
every watched tag of the repository is looked at.  With an id, a delivery that is repeated leads to
the same jobs.  It is syncd's own form, so docs/senders.md is its documentation.
"""

from __future__ import annotations

from syncd.errors import EventError, InvalidReferenceError
from syncd.events.authenticity import is_signature
from syncd.events.payload import json_object, text
from syncd.events.push import PushEvent
from syncd.events.sender import Call, Notice, Sender, header_name
from syncd.oci import Reference

_SIGNATURE = "X-Syncd-Signature-256"
_DELIVERY = "X-Syncd-Delivery"


def _is_authentic(call: Call, secret: str) -> bool:
    scheme, _, signature = call.headers.get(_SIGNATURE, "").partition("=")
    return is_signature(signature, call.body, secret) and scheme == "sha256"


def _read(call: Call, registry: str) -> Notice:
    given = call.headers.get(_DELIVERY)
    delivery = None if given is None else header_name(given, _DELIVERY)
    payload = json_object(call.body)
    named, tag = text(payload.get("repository")), payload.get("tag")
    if not named:
        raise EventError("the delivery's body has no text under repository")
    if not isinstance(tag, str | None):
        raise EventError("the delivery's body has something other than text under tag")
    where = f"{registry}/{named}" if registry else named
    try:
        pushed = Reference.parse(where if tag is None else f"{where}:{tag}")
    except InvalidReferenceError as exc:
        raise EventError(f"the delivery names no repository and tag: {exc!s:.300}") from exc
    return Notice(delivery, "push", PushEvent(frozenset({pushed.name})))


GENERIC = Sender("generic", "docs/senders.md", _is_authentic, _read, signs=True)
