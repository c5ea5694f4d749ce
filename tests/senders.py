"""Calls of every sender but GitHub: what its documentation shows, cut down, and authenticated.

The files in `data/senders` come from the pages that the modules of `syncd.events` name.  Gitea's
documentation shows no package, so that file is made from `PackagePayload` and the user that the
page shows; the second format of Harbor is the comment in its source.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from syncd.events import SENDERS

_FILES = Path(__file__).parent / "data" / "senders"
_EVENTS = "application/vnd.docker.distribution.events.v2+json"
NAMES = tuple(sender.name for sender in SENDERS)


class Documented(NamedTuple):
    """A push as a sender's documentation shows it.

    `host` and `parts` are the texts in it that name the repository, which `repository` is.
    """

    file: str
    repository: str
    host: str
    parts: tuple[str, ...]
    headers: Mapping[str, str] = {}

    @property
    def sender(self) -> str:
        """The name of the sender."""
        return "distribution" if self.file == "zot" else self.file.partition(".")[0]

    def body(self, host: str = "", path: str = "") -> bytes:
        """Return the body, with the repository renamed if that is wished."""
        return renamed((_FILES / f"{self.file}.json").read_text(), self, host, path).encode()

    def headers_for(self, host: str = "") -> dict[str, str]:
        """Return the headers that are no secret, with the host renamed if that is wished."""
        return {key: renamed(text, self, host, "") for key, text in self.headers.items()}


DOCUMENTED = (
    Documented(
        "distribution",
        "registrycluster.local/library/test",
        "registrycluster.local",
        ("library/test",),
        {"Content-Type": _EVENTS},
    ),
    Documented(
        "zot",
        "registry.example.com/space/my-image",
        "registry.example.com",
        ("space/my-image",),
        {
            "Ce-Specversion": "1.0",
            "Ce-Type": "com.example.registry.image.updated",
            "Ce-Source": "https://registry.example.com",
            "Ce-Id": "d1b7a1a5-3c0a-4a44-9d1c-5f2b7f2f3a10",
            "Content-Type": "application/json",
        },
    ),
    Documented(
        "harbor",
        "hub.harbor.com/test-webhook/debian",
        "hub.harbor.com",
        ("test-webhook/debian",),
        {"Content-Type": "application/json"},
    ),
    Documented(
        "harbor.cloudevents",
        "harbor.dev/library/busybox",
        "harbor.dev",
        ("library/busybox",),
        {"Content-Type": "application/cloudevents+json"},
    ),
    Documented("quay", "quay.io/dgangaia/test", "quay.io", ("dgangaia/test",)),
    Documented("dockerhub", "docker.io/svendowideit/testhook", "", ("svendowideit/testhook",)),
    Documented(
        "gitea",
        "gitea.example.com:3000/gitea/webhooks",
        "gitea.example.com:3000",
        ('"Gitea"', '"webhooks"'),
        {
            "X-Gitea-Delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead473",
            "X-Gitea-Event": "package",
            "Content-Type": "application/json",
        },
    ),
    Documented("generic", "registry.example.org/team/app", "registry.example.org", ("team/app",)),
)
BY_FILE = {each.file: each for each in DOCUMENTED}


def renamed(text: str, shown: Documented, host: str, path: str) -> str:
    """Return a text of a documentation with another host and path in it."""
    if host and shown.host:
        text = text.replace(shown.host, host)
    if path and len(shown.parts) == 1:
        text = text.replace(shown.parts[0], path)
    elif path:
        owner, _, name = path.partition("/")
        for old, new in zip(shown.parts, (owner, name), strict=True):
            text = text.replace(old, json.dumps(new))
    return text


def example(file: str) -> Any:
    """Return a documented body, by the name of its file."""
    return json.loads((_FILES / f"{file}.json").read_text())


def secret_of(sender: str) -> str:
    """Return the secret that a sender of the tests has."""
    return f"the-secret-of-{sender}"


def authenticated(sender: str, body: bytes, secret: str) -> tuple[dict[str, str], str]:
    """Return the headers that show the secret, or sign with it, and what the path ends with."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if sender in ("quay", "dockerhub"):
        return {}, secret
    if sender == "gitea":
        return {"X-Gitea-Signature": signature}, ""
    if sender == "generic":
        return {"X-Syncd-Signature-256": f"sha256={signature}"}, ""
    return {"Authorization": f"Bearer {secret}"}, ""


def basic(user: str, password: str) -> str:
    """Return an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def tables(folder: Path, docker_hub: str) -> str:
    """Return a table for every sender, and write their secrets; Docker Hub is elsewhere here."""
    text = ""
    for sender in NAMES:
        file = folder / f"{sender}-secret"
        file.write_text(f"{secret_of(sender)}\n")
        file.chmod(0o600)
        text += f'[[sender]]\ntype = "{sender}"\nsecret_file = "{file}"\n'
        if sender == "dockerhub":
            text += f'registry = "{docker_hub}"\n'
    return text
