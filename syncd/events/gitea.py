"""Webhooks of Gitea and Forgejo about a package.

Both sign the body with HMAC-SHA256; Forgejo sends Gitea's headers beside its own.  A container
image is a package of the type `container` that belongs to its owner, and its registry is the host
of the package's page.

Sources: https://docs.gitea.com/usage/repository/webhooks, https://forgejo.org/docs/latest/user/webhooks/
and, for the payload,
https://github.com/go-gitea/gitea/blob/main/modules/structs/hook.go (PackagePayload)
"""

from __future__ import annotations

from syncd.events.authenticity import is_signature
from syncd.events.payload import host_of, json_object, mapping, repository_name, text
from syncd.events.push import Ignored
from syncd.events.sender import Call, Notice, Sender, header_name, pushed_to


def _header(call: Call, name: str) -> str:
    """Return one of the headers that each product names after itself."""
    return call.headers.get(f"X-Gitea-{name}") or call.headers.get(f"X-Forgejo-{name}", "")


def _is_authentic(call: Call, secret: str) -> bool:
    return is_signature(_header(call, "Signature"), call.body, secret)


def _read(call: Call, registry: str) -> Notice:
    delivery = header_name(_header(call, "Delivery"), "X-Gitea-Delivery")
    event = header_name(_header(call, "Event"), "X-Gitea-Event")
    payload = json_object(call.body)
    if event != "package":
        return Notice(delivery, event, Ignored(f"syncd does nothing on the event {event!r:.60}"))
    action = payload.get("action")
    if action != "created":
        return Notice(delivery, event, Ignored(f"the action {action!r:.60} pushes nothing"))
    package = mapping(payload.get("package"))
    if package.get("type") != "container":
        return Notice(delivery, event, Ignored("the package is no container image"))
    pages = (package.get("html_url"), mapping(payload.get("repository")).get("html_url"))
    host = registry or next(filter(None, (host_of(text(page)) for page in pages)), "")
    owner = text(mapping(package.get("owner")).get("login"))
    path = f"{owner}/{text(package.get('name'))}".lower()
    return Notice(delivery, event, pushed_to([repository_name(host, path)]))


GITEA = Sender(
    "gitea",
    "https://docs.gitea.com/usage/repository/webhooks",
    _is_authentic,
    _read,
    signs=True,
)
