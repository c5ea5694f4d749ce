"""Webhooks of Docker Hub about a push to a repository.

Docker Hub has no place for a secret but the URL, and no event but a push.  Its `callback_url` is
never asked: it is a legacy field, and an event must not make a hypervisor call an address.

Source: https://docs.docker.com/docker-hub/repos/manage/webhooks/
"""

from __future__ import annotations

from syncd.events.authenticity import is_same
from syncd.events.payload import json_object, mapping, repository_name, text
from syncd.events.push import Ignored
from syncd.events.sender import Call, Notice, Sender, body_id, pushed_to

_REGISTRY = "docker.io"


def _is_authentic(call: Call, secret: str) -> bool:
    return is_same(call.key, secret)


def _read(call: Call, registry: str) -> Notice:
    payload = json_object(call.body)
    if not mapping(payload.get("push_data")):
        return Notice(None, "webhook", Ignored("it tells of no push"))
    path = text(mapping(payload.get("repository")).get("repo_name"))
    name = repository_name(registry or _REGISTRY, path)
    return Notice(body_id(call.body), "push", pushed_to([name]))


DOCKER_HUB = Sender(
    "dockerhub",
    "https://docs.docker.com/docker-hub/repos/manage/webhooks/",
    _is_authentic,
    _read,
    in_path=True,
)
