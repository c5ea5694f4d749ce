"""What `events.redelivery` promises: what was missed, and nothing raised whatever GitHub says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.errors import GitHubError
from syncd.events.redelivery import attempts_of, hooks_of, missed, networks_of

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def entry(guid: str, minutes: float = 0, ok: bool = False, **more: Any) -> dict[str, Any]:
    """Return an entry of GitHub's list, of an attempt so many minutes ago."""
    at = NOW - timedelta(minutes=minutes)
    made = {
        "id": 10_000_000 - int(minutes),
        "guid": guid,
        "delivered_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status": "OK" if ok else "failed to connect",
        "status_code": 200 if ok else 502,
        "event": "package",
        "action": "published",
    }
    return made | more


def found(*entries: dict[str, Any], days: float = 3) -> list[tuple[str, int]]:
    """Return GUID and id of what was missed."""
    attempts = attempts_of(list(entries))
    return [(each.guid, each.id) for each in missed(attempts, NOW - timedelta(days=days))]


def test_missed() -> None:
    """Of a delivery that no attempt brought, the last attempt counts; the oldest delivery first."""
    assert found(
        entry("b", 1),
        entry("a", 2),
        entry("b", 5),
        entry("c", 6, ok=True),
        entry("c", 7),
        entry("d", 8),
        entry("d", 9, ok=True),
    ) == [("a", 9_999_998), ("b", 9_999_999)]


def test_only_what_syncd_reads() -> None:
    """What syncd would ignore is not asked for again."""
    kinds = {
        ("package", "published"): True,
        ("registry_package", "updated"): True,
        ("package_v2", "published"): True,
        ("workflow_run", "completed"): True,
        ("workflow_run", "requested"): False,
        ("package", "deleted"): False,
        ("push", None): False,
        ("ping", None): False,
    }
    for (event, action), wanted in kinds.items():
        assert bool(found(entry("a", event=event, action=action))) is wanted, event


def test_three_days() -> None:
    """What is older than three days is past asking for, whatever its guid did since."""
    assert found(entry("a", 3 * 1440 - 1), entry("b", 3 * 1440 + 1)) == [("a", 9_995_681)]


@pytest.mark.parametrize(
    ("more", "ok"),
    [
        ({"status": "OK", "status_code": 0}, True),
        ({"status": "ok", "status_code": 204}, True),
        ({"status": "Invalid HTTP Response: 302", "status_code": 302}, False),
        ({"status": "timed out", "status_code": 0}, False),
        ({"status": "timed out", "status_code": None}, False),
        ({"status": "timed out", "status_code": "200"}, False),
    ],
)
def test_how_it_ended(more: dict[str, Any], ok: bool) -> None:
    """OK and every 2xx are a success, whatever else GitHub says of the rest."""
    (attempt,) = attempts_of([entry("a", **more)])
    assert attempt.ok is ok


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "1"},
        {"id": True},
        {"id": -1},
        {"id": 1 << 63},
        {"id": 1.5},
        {"guid": ""},
        {"guid": "a/../b"},
        {"guid": "a" * 101},
        {"guid": None},
        {"delivered_at": "yesterday"},
        {"delivered_at": "0001-01-01T00:00:00+23:59"},
        {"delivered_at": 7},
        {"delivered_at": "9999-12-31T23:59:59Z"},
        {"delivered_at": "1999-12-31T23:59:59Z"},
        {"status": None},
        {"status": "pending"},
    ],
)
def test_what_is_no_entry(wrong: dict[str, Any]) -> None:
    """An entry that cannot be asked for, or has not ended, is passed over, and no other one."""
    entries = [entry("a") | wrong, entry("b"), None, "text", [1]]
    assert [each.guid for each in attempts_of(entries)] == ["b"]


def test_words_are_fit_to_be_shown() -> None:
    """GitHub's words for a failure are short, and send a terminal no commands."""
    (attempt,) = attempts_of([entry("a", status="\x1b[2J\n" + "x" * 500)])
    assert attempt.status == "[2J" + "x" * 97


def test_hooks() -> None:
    """A webhook leads to syncd by the end of its path, whatever stands before that."""
    urls = {
        "https://Syncd.example.org/webhooks/github": ("syncd.example.org", True),
        "https://x:y@a.example:8443/deep/webhooks/github/?a=b": ("a.example", True),
        "https://a.example/webhooks/githubs": ("a.example", False),
        "https://[broken/webhooks/github": ("", False),
        f"https://{'a' * 1900}/webhooks/github": ("a" * 1900, True),
        "": ("", False),
    }
    page = [{"id": 7, "config": {"url": url}} for url in urls]
    page += [{"id": 7, "config": {"url": f"https://{'a' * 2048}/webhooks/github"}}]
    listed = hooks_of([*page, {"id": 7}, {"id": None, "config": {"url": "x"}}, {"config": 1}, 3])
    assert [(hook.host, hook.leads_to_syncd) for hook in listed] == [*urls.values(), ("", False)]


def test_networks() -> None:
    """The networks are those of hooks, and what is none is passed over."""
    meta = {"hooks": ["192.30.252.0/22", "2a0a:a440::/29", "x", None, "1.2.3.4/8"], "web": ["::/0"]}
    assert networks_of(meta) == (ip_network("192.30.252.0/22"), ip_network("2a0a:a440::/29"))


@pytest.mark.parametrize("meta", [None, [], {}, {"hooks": []}, {"hooks": "::/0"}, {"hooks": ["x"]}])
def test_no_networks(meta: object) -> None:
    """An answer without networks is a fault: nobody is let in by mistake."""
    with pytest.raises(GitHubError, match="names no networks"):
        networks_of(meta)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)
ENTRIES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "guid", "delivered_at", "status", "config", "hooks"), JSON)
)


@given(JSON | st.lists(ENTRIES) | ENTRIES)
def test_any_json(page: Any) -> None:
    """Whatever JSON comes, it is read or refused."""
    for read in (hooks_of, attempts_of, networks_of):
        try:
            read(page)
        except GitHubError:
            continue
