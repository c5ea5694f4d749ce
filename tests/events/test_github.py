"""What `event` promises: only signed deliveries count, and every shape GitHub sends does."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from syncd.errors import EventError, SignatureError
from syncd.events.github import Delivery, pushed_by, read_delivery
from syncd.events.push import Ignored, PushEvent
from syncd.oci.reference import Reference
from tests.deliveries import SECRET, example, signed

BODY = json.dumps(example("package.published.container")).encode()


def test_authentic() -> None:
    """A signed delivery is read with its id and event."""
    delivery = read_delivery(signed(BODY, "package", "42"), BODY, SECRET)
    assert (delivery.id, delivery.event) == ("42", "package")
    assert delivery.payload == json.loads(BODY)


RIGHT = signed(BODY)["X-Hub-Signature-256"]


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        RIGHT.removeprefix("sha256="),
        RIGHT.upper(),
        RIGHT[:-1],
        RIGHT + "0",
        f"sha1={RIGHT.removeprefix('sha256=')}",
        signed(BODY, secret="another")["X-Hub-Signature-256"],
        signed(BODY + b" ")["X-Hub-Signature-256"],
        signed(BODY, secret="")["X-Hub-Signature-256"],
        "sha256=\udcff\udcfe",
        "sha256=é",
    ],
)
def test_wrong_signature(signature: str | None) -> None:
    """Nothing but the HMAC of the raw body is a signature."""
    headers = signed(BODY) | {"X-Hub-Signature": "sha1=0"}
    del headers["X-Hub-Signature-256"]
    if signature is not None:
        headers["X-Hub-Signature-256"] = signature
    with pytest.raises(SignatureError, match="same secret"):
        read_delivery(headers, BODY, SECRET)


def test_signature_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is hmac's own, whose time tells nothing of the secret."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    read_delivery(signed(BODY), BODY, SECRET)
    signature = RIGHT.removeprefix("sha256=").encode()
    assert compared == [(signature, signature)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"package"',
        b"\xff\xfe\x00",
        b"\x80",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 5000,
        b'{"action": "published"',
    ],
)
def test_garbage(body: bytes) -> None:
    """A signed body that is not a JSON object is refused."""
    with pytest.raises(EventError, match=r"not a? ?JSON"):
        read_delivery(signed(body), body, SECRET)


@pytest.mark.parametrize("header", ["X-GitHub-Delivery", "X-GitHub-Event"])
@pytest.mark.parametrize("value", ["", "x" * 201, "\udcff", "a\x00b", "a\nb"])
def test_headers(header: str, value: str) -> None:
    """A delivery without its id or event, or one that is no text, or endless, is refused."""
    with pytest.raises(EventError, match="lacks"):
        read_delivery(signed(BODY) | {header: value}, BODY, SECRET)


@pytest.mark.parametrize("suffix", ["", "; charset=utf-8"])
def test_form(suffix: str) -> None:
    """A webhook set up with GitHub's form encoding is read as well."""
    body = urlencode({"payload": BODY.decode()}).encode()
    headers = signed(body) | {"Content-Type": f"application/x-www-form-urlencoded{suffix}"}
    assert read_delivery(headers, body, SECRET).payload == json.loads(BODY)


@pytest.mark.parametrize("body", [b"", b"payload=", b"other=1", b"%ff%fe", b"payload=%ff"])
def test_bad_form(body: bytes) -> None:
    """A form without a JSON payload is refused."""
    headers = signed(body) | {"Content-Type": "application/x-www-form-urlencoded"}
    with pytest.raises(EventError, match="not JSON"):
        read_delivery(headers, body, SECRET)


def names(event: str, payload: Mapping[str, Any]) -> set[str]:
    """Return the repositories that a delivery names."""
    result = pushed_by(Delivery("1", event, payload))
    assert isinstance(result, PushEvent)
    return set(result.repositories)


@pytest.mark.parametrize(
    ("event", "file", "repository"),
    [
        ("package", "package.published.container", "ghcr.io/codertocat/hello-world"),
        ("package", "package.published.docker", "ghcr.io/codertocat/hello-world"),
        ("registry_package", "registry_package.published.docker", "ghcr.io/codertocat/hello-world"),
        ("package_v2", "package.published.container", "ghcr.io/codertocat/hello-world"),
    ],
)
@pytest.mark.parametrize("action", ["published", "updated"])
def test_examples(event: str, file: str, repository: str, action: str) -> None:
    """GitHub's own examples name their repository."""
    assert repository in names(event, example(file) | {"action": action})


@pytest.mark.parametrize(
    ("package", "repository"),
    [
        ({"package_version": {"package_url": "ghcr.io/o/n:main"}}, "ghcr.io/o/n"),
        ({"package_version": {"package_url": "ghcr.io/O/N:"}}, "ghcr.io/o/n"),
        ({"package_version": {"package_url": "ghcr.io/o/n"}}, "ghcr.io/o/n"),
        ({"package_version": {"package_url": "https://ghcr.io/o/n:x"}}, "ghcr.io/o/n"),
        ({"package_version": {"package_url": f"ghcr.io/o/n@sha256:{'0' * 64}"}}, "ghcr.io/o/n"),
        ({"package_version": {"package_url": "registry:5000/o/n:x"}}, "registry:5000/o/n"),
        ({"package_version": {"package_url": "ghcr.io/o/r/n:x"}}, "ghcr.io/o/r/n"),
        ({"package_version": None, "name": "N", "namespace": "O"}, "ghcr.io/o/n"),
        ({"package_version": [], "name": "r/n", "owner": {"login": "O"}}, "ghcr.io/o/r/n"),
        ({"package_version": {"container_metadata": None}, "name": "n", "namespace": "o"}, None),
        ({"package_version": {"package_url": ""}, "name": "n", "owner": {"login": "o"}}, None),
        ({"package_version": {"body": "text"}, "name": "n", "namespace": "o"}, "ghcr.io/o/n"),
        ({"package_version": {"body": {"a": 1}}, "name": "n", "namespace": "o"}, "ghcr.io/o/n"),
        ({"package_type": "CONTAINER", "name": "n", "namespace": "o"}, "ghcr.io/o/n"),
        ({"package_type": "npm", "ecosystem": "docker", "name": "n", "namespace": "o"}, None),
        ({"name": "ignored", "namespace": "o/n", "owner": None}, "ghcr.io/o/n"),
        ({"name": "n", "namespace": None, "owner": {"login": "o"}}, "ghcr.io/o/n"),
    ],
)
@pytest.mark.parametrize("key", ["package", "registry_package"])
def test_shapes(key: str, package: dict[str, Any], repository: str | None) -> None:
    """However GitHub fills a package's fields, its repository is among the names."""
    found = names("package", {"action": "published", key: package})
    assert (repository or "ghcr.io/o/n") in found


@pytest.mark.parametrize(
    "package",
    [
        None,
        {},
        [],
        "text",
        5,
        {"name": "n"},
        {"name": None, "namespace": None, "owner": {"login": None}},
        {"name": ["n"], "namespace": {"o": 1}, "owner": {"login": 7}},
        {"name": "a b", "namespace": "c d", "owner": "o"},
        {"package_version": {"package_url": "ghcr.io//:"}},
        {"package_version": {"package_url": 5}},
        {"package_version": {"package_url": "x" * 100_000}},
        {"package_version": {"package_url": "ghcr.io/\ud800"}},
        {"package_version": {"package_url": "../../etc/passwd"}},
    ],
)
def test_nameless(package: object) -> None:
    """A package event that names no image is ignored with a reason."""
    delivery = Delivery("1", "package", {"action": "published", "package": package})
    assert pushed_by(delivery) == Ignored("it names no container image")


@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [
        ("package", {"action": "deleted"}, "the action 'deleted' pushes nothing"),
        ("package", {}, "the action None pushes nothing"),
        ("package", {"action": ["published"]}, "the action ['published'] pushes nothing"),
        ("push", {}, "syncd does nothing on the event 'push'"),
        ("\x00" * 100, {}, "syncd does nothing on the event"),
        ("workflow_run", {}, "did not complete"),
        ("workflow_run", {"action": "completed", "workflow_run": None}, "did not complete"),
        ("workflow_run", {"action": "requested"}, "did not complete"),
    ],
)
def test_ignored(event: str, payload: dict[str, Any], reason: str) -> None:
    """What pushes nothing is told apart, with its reason."""
    result = pushed_by(Delivery("1", event, payload))
    assert isinstance(result, Ignored)
    assert reason in result.reason


@pytest.mark.parametrize(
    ("change", "owner"),
    [
        ({}, "octo-org"),
        ({"repository": {"owner": {"login": "MieWeb"}}}, "mieweb"),
        ({"repository": None}, None),
        ({"repository": {"owner": {"login": 5}}}, None),
        ({"action": "in_progress"}, None),
        ({"workflow_run": {"conclusion": "failure"}}, None),
        ({"workflow_run": {"conclusion": None}}, None),
    ],
)
def test_workflow_run(change: dict[str, Any], owner: str | None) -> None:
    """A build that succeeded stands for every repository of its owner, and no other does."""
    payload = example("workflow_run.completed") | change
    result = pushed_by(Delivery("1", "workflow_run", payload))
    assert (result.owner if isinstance(result, PushEvent) else None) == owner


@pytest.mark.parametrize(
    ("event", "repository", "concerned"),
    [
        (PushEvent(frozenset({"ghcr.io/o/n"})), "ghcr.io/o/n", True),
        (PushEvent(frozenset({"ghcr.io/o/n"})), "ghcr.io/o/n/m", False),
        (PushEvent(frozenset({"ghcr.io/o/n"})), "other.io/o/n", False),
        (PushEvent(frozenset({"ghcr.io/o/n"})), "ghcr.io/o/x", False),
        (PushEvent(owner="o"), "ghcr.io/o/n/m", True),
        (PushEvent(owner="o"), "ghcr.io/oo/n", False),
        (PushEvent(), "ghcr.io/o/n", False),
    ],
)
def test_concerns(event: PushEvent, repository: str, concerned: bool) -> None:
    """An event concerns the repositories it names, or all of its owner."""
    assert event.concerns(Reference.parse(repository)) is concerned
