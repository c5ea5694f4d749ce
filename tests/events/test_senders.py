"""What `events` promises of every sender but GitHub: documented calls count, hostile do not."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from syncd.config.sender_settings import SenderType
from syncd.errors import EventError
from syncd.events.push import Ignored, PushEvent
from syncd.events.sender import Call, Notice
from syncd.events.senders import SENDERS
from tests.senders import BY_FILE, DOCUMENTED, Documented, authenticated, basic, example

BY_NAME = {sender.name: sender for sender in SENDERS}
SECRET = "a-secret-of-this-sender-alone"


def read(file: str, body: bytes, registry: str = "", **headers: str) -> Notice:
    """Read a body as its sender does, with the documented headers and further ones."""
    shown = BY_FILE[file]
    call = Call({**shown.headers, **headers}, body)
    return BY_NAME[shown.sender].read(call, registry)


def names(notice: Notice) -> set[str]:
    """Return the repositories that a notice names."""
    assert isinstance(notice.pushed, PushEvent), notice
    assert notice.pushed.owner is None
    return set(notice.pushed.repositories)


def reason(notice: Notice) -> str:
    """Return why a notice asks for nothing."""
    assert isinstance(notice.pushed, Ignored), notice
    return notice.pushed.reason


def test_every_type_can_be_configured() -> None:
    """The configuration knows every sender, and no other."""
    assert get_args(SenderType) == tuple(BY_NAME)


@pytest.mark.parametrize("shown", DOCUMENTED, ids=lambda shown: shown.file)
def test_documented(shown: Documented) -> None:
    """The push that a documentation shows names its repository."""
    assert names(read(shown.file, shown.body())) == {shown.repository}


@pytest.mark.parametrize("shown", DOCUMENTED, ids=lambda shown: shown.file)
def test_registry_of_the_configuration(shown: Documented) -> None:
    """Where the registry's host is configured, no other one can be named."""
    body = b'{"repository": "team/app"}' if shown.file == "generic" else shown.body()
    (name,) = names(read(shown.file, body, "harbor.example.org:8443"))
    assert name.startswith("harbor.example.org:8443/")


@pytest.mark.parametrize(
    ("file", "same"),
    [("distribution", True), ("zot", True), ("harbor", True), ("harbor.cloudevents", True),
     ("dockerhub", True), ("gitea", True), ("quay", False), ("generic", False)],
)  # fmt: skip
def test_id(file: str, same: bool) -> None:
    """A call has an id where two pushes never look the same, and else none."""
    first, second = (read(file, BY_FILE[file].body()).id for _ in range(2))
    assert (first is not None) is same
    assert first == second


def test_ids_differ() -> None:
    """Another event of the same repository has another id."""
    body = BY_FILE["harbor"].body()
    later = body.replace(b'"occur_at": 1586922308', b'"occur_at": 1586922309')
    assert read("harbor", body).id != read("harbor", later).id
    assert read("zot", b"{}", **{"Ce-Id": "2"}).id == "2"


@pytest.mark.parametrize(
    ("file", "body", "headers", "why"),
    [
        ("distribution", example("distribution.pull"), {}, "no manifest that was pushed"),
        ("distribution", {"events": []}, {}, "no manifest"),
        ("distribution", {"events": example("distribution")["events"][1:]}, {}, "no manifest"),
        ("zot", {"name": "a/b"}, {"Ce-Type": "zotregistry.image.deleted"}, "image.deleted"),
        ("zot", {"name": "a/b"}, {"Ce-Type": "zotregistry.repository.created"}, "does nothing"),
        ("zot", {"name": "a/b"}, {"Ce-Source": "zotregistry.dev"}, "set registry"),
        ("harbor", {"type": "PULL_ARTIFACT"}, {}, "'PULL_ARTIFACT'"),
        ("harbor.cloudevents", {"specversion": "1.0", "type": "harbor.scan.completed"}, {}, "scan"),
        ("quay", example("quay.build_queued"), {}, "no tag that was updated"),
        ("dockerhub", {"repository": {"repo_name": "a/b"}}, {}, "no push"),
        ("gitea", example("gitea") | {"action": "deleted"}, {}, "'deleted' pushes nothing"),
        ("gitea", {"ref": "refs/heads/main"}, {"X-Gitea-Event": "push"}, "event 'push'"),
        ("gitea", {"action": "created", "package": {"type": "npm"}}, {}, "the package is no"),
    ],
)
def test_ignored(file: str, body: Any, headers: dict[str, str], why: str) -> None:
    """What is no push of an image is told apart, with its reason."""
    assert why in reason(read(file, json.dumps(body).encode(), **headers))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    ],
)
def test_manifests(media_type: str) -> None:
    """Manifests and indexes of both kinds are what counts in distribution's events."""
    payload = example("distribution")
    payload["events"][0]["target"]["mediaType"] = media_type
    assert names(read("distribution", json.dumps(payload).encode()))


def test_one_envelope_of_several_pushes() -> None:
    """Unrelated events of one envelope each name their repository."""
    payload = example("distribution")
    payload["events"][1] = json.loads(json.dumps(payload["events"][0]).replace("library/", "b/"))
    assert names(read("distribution", json.dumps(payload).encode())) == {
        "registrycluster.local/library/test",
        "registrycluster.local/b/test",
    }


def test_forgejo() -> None:
    """Forgejo's own headers are as good as Gitea's."""
    body = BY_FILE["gitea"].body()
    headers, _ = authenticated("gitea", body, SECRET)
    given = {
        key.replace("Gitea", "Forgejo"): value
        for key, value in {**BY_FILE["gitea"].headers, **headers}.items()
    }
    call = Call(given, body)
    assert BY_NAME["gitea"].is_authentic(call, SECRET)
    assert names(BY_NAME["gitea"].read(call, ""))


@pytest.mark.parametrize("name", BY_NAME)
def test_authentic(name: str) -> None:
    """The secret counts where the sender shows it, and in no other form."""
    body, sender = b"{}", BY_NAME[name]
    headers, key = authenticated(name, body, SECRET)
    assert sender.is_authentic(Call(headers, body, key), SECRET)
    assert not sender.is_authentic(Call({}, body), SECRET)
    for wrong in (SECRET + "x", SECRET[:-1], SECRET.upper(), "", "\udcff", "é"):
        for headers, key in (authenticated(name, body, wrong.encode("utf-8", "replace").decode()),):
            assert not sender.is_authentic(Call(headers, body, key), SECRET), wrong


@pytest.mark.parametrize("name", ["gitea", "generic"])
def test_signature_is_of_the_raw_body(name: str) -> None:
    """A signature over another body is none, however alike the JSON is."""
    headers, _ = authenticated(name, b'{"a": 1}', SECRET)
    assert not BY_NAME[name].is_authentic(Call(headers, b'{"a":1}'), SECRET)
    bare = {key: value.removeprefix("sha256=") for key, value in headers.items()}
    assert BY_NAME[name].is_authentic(Call(bare, b'{"a": 1}'), SECRET) is (name == "gitea")


@pytest.mark.parametrize("name", ["distribution", "harbor"])
@pytest.mark.parametrize(
    ("header", "right"),
    [
        (SECRET, True),
        (f"Bearer {SECRET}", True),
        (f"bearer {SECRET}", True),
        (basic("zot", SECRET), True),
        (basic(SECRET, "zot"), False),
        (f"Basic {SECRET}", False),
        ("Basic \udcff", False),
        (f"Token {SECRET}", False),
        ("Bearer ", False),
        ("Bearer", False),
        ("\udcff\ud800", False),
    ],
)
def test_authorization(name: str, header: str, right: bool) -> None:
    """A header is the secret, a bearer's token, or the password of any user."""
    call = Call({"Authorization": header}, b"{}")
    assert BY_NAME[name].is_authentic(call, SECRET) is right


def test_authorization_as_it_was_entered() -> None:
    """A secret's file may have the whole header, scheme and all."""
    call = Call({"Authorization": "Custom abc"}, b"{}")
    assert BY_NAME["harbor"].is_authentic(call, "Custom abc")


@pytest.mark.parametrize("name", BY_NAME)
def test_compared_in_constant_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every comparison is hmac's own, whose time tells nothing of the secret."""
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: True)
    assert BY_NAME[name].is_authentic(
        Call({"X-Syncd-Signature-256": "sha256="}, b"", "wrong"), SECRET
    )


def test_no_secret_is_printed() -> None:
    """A call tells nothing of itself: its path or headers may be a secret."""
    assert repr(Call({"Authorization": SECRET}, SECRET.encode(), SECRET)) == "Call()"


GARBAGE = (
    b"", b"not json", b"[]", b"null", b'"push"', b"\xff\xfe\x00", b"\x80", b"[" * 200_000,
    b'{"a":' * 200_000, b"9" * 5000, b'{"repository": "a',
)  # fmt: skip


@pytest.mark.parametrize("file", BY_FILE)
@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(file: str, body: bytes) -> None:
    """A body that is no JSON object is refused, by every sender."""
    with pytest.raises(EventError, match=r"not a? ?JSON"):
        read(file, body)


HOSTILE: tuple[object, ...] = (
    None, True, 0, -1, 1e308, "", " ", "x" * 100_000, "\x00", "a\nb", "\ud800", "../../etc/passwd",
    "//", ":", "@", "ghcr.io", "ghcr.io/../x", "http://[", "https://user:pw@host/x", "A B/c",
    [], [None], [[[[]]]], ["latest"], {}, {"a": {"b": None}}, [{}] * 9_000,
    {"toString": "x", "": [""]}, "a/b@sha256:0", "é/ü", "x:y:z/a",
    "docker.io/library/nginx:" + "t" * 129,
)  # fmt: skip


def replaced(value: Any, by: object) -> Iterator[Any]:
    """Yield the value with each part of it, in turn, replaced."""
    yield by
    if isinstance(value, dict):
        for key, part in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from ({**value, key: new} for new in replaced(part, by))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from ([*value[:at], new, *value[at + 1 :]] for new in replaced(part, by))


@pytest.mark.parametrize("file", BY_FILE)
@pytest.mark.parametrize("by", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile(file: str, by: object) -> None:
    """Whatever stands in any place of a body, it is a push, ignored, or refused, and no more."""
    for payload in replaced(example(file), by):
        try:
            notice = read(file, json.dumps(payload).encode())
        except EventError as exc:
            said = str(exc)
            notice = Notice(None, "refused", Ignored(said[:199]))
            assert len(said) < 1000
        assert notice.event.isprintable()
        assert len(notice.event) <= 200
        if isinstance(notice.pushed, Ignored):
            assert len(notice.pushed.reason) < 200
            assert notice.pushed.reason.isprintable()
        else:
            for name in notice.pushed.repositories:
                assert name.isascii()
                assert name.isprintable()
                assert len(name) < 1000


@pytest.mark.parametrize("file", ["zot", "gitea", "generic"])
@pytest.mark.parametrize("value", ["", "x" * 201, "\udcff", "a\x00b", "a\nb"])
def test_headers(file: str, value: str) -> None:
    """An id or event that is no text, or endless, is refused."""
    wrong = {"zot": ("Ce-Id", "Ce-Type"), "gitea": ("X-Gitea-Delivery", "X-Gitea-Event"),
             "generic": ("X-Syncd-Delivery",)}  # fmt: skip
    for header in wrong[file]:
        with pytest.raises(EventError, match="lacks"):
            read(file, BY_FILE[file].body(), **{header: value})


def test_too_many_events() -> None:
    """A list that no sender sends is refused before its entries are looked at."""
    with pytest.raises(EventError, match="more than 10000"):
        read("distribution", json.dumps({"events": [{}] * 10_001}).encode())


@pytest.mark.parametrize(
    "host", ["registry", "library", "ghcr.io/org", "", "http://ghcr.io", "a b.c"]
)
def test_hosts(host: str) -> None:
    """A host that references would not take for one makes no repository of another registry."""
    payload = json.loads(json.dumps(example("distribution")).replace("registrycluster.local", host))
    assert (
        reason(read("distribution", json.dumps(payload).encode())) == "it names no container image"
    )


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "no text under repository"),
        ({"repository": 5}, "no text under repository"),
        ({"repository": "a.b/c", "tag": 5}, "other than text under tag"),
        ({"repository": "a.b/c", "tag": "x y"}, "is not a tag"),
        ({"repository": "a.b/C"}, "is not a repository"),
    ],
)
def test_generic_says_what_is_wrong(payload: Any, message: str) -> None:
    """A script is told what is wrong with what it sent."""
    with pytest.raises(EventError, match=message):
        read("generic", json.dumps(payload).encode())
