"""Notifications of Quay and of Quay.io about a push to a repository.

Quay has no place for a secret but the URL.  What it sends has neither an id nor a time, so two
pushes of a tag look the same, and each is looked at.

Source: https://docs.redhat.com/en/documentation/red_hat_quay/3.6/html/use_red_hat_quay/repository_notifications
"""

from __future__ import annotations

from syncd.events.authenticity import is_same
from syncd.events.payload import json_object, repository_name, text
from syncd.events.push import Ignored
from syncd.events.sender import Call, Notice, Sender, pushed_to


def _is_authentic(call: Call, secret: str) -> bool:
    return is_same(call.key, secret)


def _read(call: Call, registry: str) -> Notice:
    payload = json_object(call.body)
    # Other events name their repository in the same way, and have no updated_tags.
    if not payload.get("updated_tags"):
        return Notice(None, "notification", Ignored("it names no tag that was updated"))
    host, _, path = text(payload.get("docker_url")).partition("/")
    return Notice(None, "push", pushed_to([repository_name(registry or host, path)]))


QUAY = Sender(
    "quay",
    "https://docs.redhat.com/en/documentation/red_hat_quay/3.6/html/use_red_hat_quay/repository_notifications",
    _is_authentic,
    _read,
    in_path=True,
)
