"""Webhooks of Harbor, in both of its formats: Default and CloudEvents.

Both have the same resources, each with the full name of what was pushed.  Harbor shows the secret
in the `Authorization` header, as the webhook's *Auth Header* has it.

Sources: https://goharbor.io/docs/latest/working-with-projects/project-configuration/configure-webhooks/
and, for the attributes of the second format,
https://github.com/goharbor/harbor/blob/main/src/pkg/notifier/formats/cloudevents.go
"""

from __future__ import annotations

from syncd.events.authenticity import is_authorization
from syncd.events.payload import entries, json_object, mapping, repository_name, text
from syncd.events.push import Ignored
from syncd.events.sender import Call, Notice, Sender, body_id, pushed_to

_PUSHED = ("PUSH_ARTIFACT", "harbor.artifact.pushed")


def _is_authentic(call: Call, secret: str) -> bool:
    return is_authorization(call.headers.get("Authorization", ""), secret)


def _read(call: Call, registry: str) -> Notice:
    payload = json_object(call.body)
    kind = payload.get("type")
    if kind not in _PUSHED:
        reason = f"syncd does nothing on the event {kind!r:.60}"
        return Notice(None, f"{text(kind)!r:.60}", Ignored(reason))
    data = mapping(payload.get("data" if "specversion" in payload else "event_data"))
    path = text(mapping(data.get("repository")).get("repo_full_name"))
    if registry:
        names = [repository_name(registry, path)]
    else:
        urls = {text(resource.get("resource_url")) for resource in entries(data.get("resources"))}
        names = [repository_name(*url.split("/", 1)) for url in urls if "/" in url]
    return Notice(body_id(call.body), str(kind), pushed_to(names))


HARBOR = Sender(
    "harbor",
    "https://goharbor.io/docs/latest/working-with-projects/project-configuration/configure-webhooks/",
    _is_authentic,
    _read,
)
