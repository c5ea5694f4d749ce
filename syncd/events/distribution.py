"""Notifications of registries: distribution's own, which GitLab's registry sends too, and zot's.

distribution sends an envelope of events, one for each manifest and each layer, and sends it again
until it is answered with success.  zot sends one CloudEvent, whose attributes are headers
(`Ce-Type`, `Ce-Id`, `Ce-Source`) and whose body names a repository without its registry.  Both show
the secret in the `Authorization` header.

Sources: https://distribution.github.io/distribution/about/notifications/,
https://docs.gitlab.com/administration/packages/container_registry/#configure-container-registry-notifications,
https://zotregistry.dev/latest/articles/events/ and
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncd.events.authenticity import is_authorization
from syncd.events.payload import entries, host_of, json_object, mapping, repository_name, text
from syncd.events.push import Ignored
from syncd.events.sender import Call, Notice, Sender, body_id, header_name, pushed_to

_MANIFEST = (".manifest.", ".image.index.")
"""What the media types of manifests and indexes have in them, and those of layers have not."""


def _is_authentic(call: Call, secret: str) -> bool:
    return is_authorization(call.headers.get("Authorization", ""), secret)


def _read(call: Call, registry: str) -> Notice:
    payload = json_object(call.body)
    if "Ce-Type" in call.headers:
        return _cloud_event(call.headers, payload, registry)
    pushes = [event for event in entries(payload.get("events")) if event.get("action") == "push"]
    places = {
        (
            registry or text(mapping(event.get("request")).get("host")),
            text(target.get("repository")),
        )
        for event in pushes
        if _is_manifest(target := mapping(event.get("target")))
    }
    if not places:
        return Notice(None, "notification", Ignored("it tells of no manifest that was pushed"))
    names = (repository_name(host, path) for host, path in places)
    return Notice(body_id(call.body), "notification", pushed_to(names))


def _is_manifest(target: Mapping[str, Any]) -> bool:
    media_type = text(target.get("mediaType"))
    return any(part in media_type for part in _MANIFEST)


def _cloud_event(headers: Mapping[str, str], payload: Mapping[str, Any], registry: str) -> Notice:
    """Read an event of zot, whose types have a prefix that its configuration chooses."""
    kind = header_name(headers.get("Ce-Type", ""), "Ce-Type")
    name = header_name(headers.get("Ce-Id", ""), "Ce-Id")
    if not f".{kind}".endswith(".image.updated"):
        return Notice(name, kind, Ignored(f"syncd does nothing on the event {kind!r:.60}"))
    host = registry or host_of(headers.get("Ce-Source", ""))
    if not host:
        reason = "it names no registry; set registry in its [[sender]]"
        return Notice(name, kind, Ignored(reason))
    return Notice(name, kind, pushed_to([repository_name(host, text(payload.get("name")))]))


DISTRIBUTION = Sender(
    "distribution",
    "https://distribution.github.io/distribution/about/notifications/",
    _is_authentic,
    _read,
)
