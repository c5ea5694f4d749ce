"""What `message` promises: what failed and how many, then why, then what to do about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.oci.reference import Digest, Reference
from syncd.report.message import message_of
from syncd.report.news import Event, Item, News
from syncd.report.summary import Summary
from syncd.sync.conditions import Condition, Lack, Place, Status
from syncd.sync.notification import Notification, Severity, Told
from syncd.sync.replacement import Replacement
from syncd.targets.root_swap import RootSwap

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
THEN = NOW - timedelta(hours=2)
DIGEST = Digest.of(b"one")


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


def condition(name: str, status: Status, reason: str = "", target: str = "t") -> Condition:
    place = Place(Reference.parse(name), target)
    return Condition(place, status, THEN, NOW, reason, digest=DIGEST)


def failing(name: str, reason: str = "no room", target: str = "t") -> Item:
    row = condition(name, Status.FAILING, reason, target)
    return Item(Event.FAILING, row.place, row)


def said(*items: Item, lasting: int = 0, **more: Any) -> Notification:
    return message_of(News(items, (), (), lasting), "pve1", NOW, **more)


def test_one_failure() -> None:
    """One tag is named in the title; the body says why, since when, where, and what to do."""
    message = said(failing("a.b/c:d"))
    assert message.title == "syncd on pve1: a.b/c:d failing"
    assert message.body.splitlines() == [
        "failing: no room",
        f"- a.b/c: d, since {THEN.astimezone():%Y-%m-%d %H:%M %Z}, in t",
        "What to do: mend what is named above, then run `syncd sync` on pve1, or wait for the next "
        "sweep. What was published before stays.",
    ]
    assert message.severity is Severity.FAILURE


def test_many_failures() -> None:
    """A reason that names its tag is the same as another tag's; a tag in two targets is one tag."""
    items = [
        failing(f"a.b/c:{tag}", f"{reason} {subject}", target)
        for tag in "xyz"
        for target in ("t", "u")
        for reason, subject in [("cannot be reached for", f"a.b/c:{tag}")]
    ]
    items.append(failing("a.b/c:w", "cannot be reached for the tags of a.b/c"))
    items.append(failing("a.b/other:d", "another reason"))
    message = said(*items)
    assert message.title == "syncd on pve1: 5 tags failing"
    first, second, third, fourth, _ = message.body.splitlines()
    assert first == "failing: cannot be reached for it"
    assert second.startswith("- a.b/c: w, x, y, z, since ")
    assert second.endswith(", in t, u")
    assert (third, fourth[:17]) == ("failing: another reason", "- a.b/other: d, s")


def test_passing() -> None:
    """Of failures that may pass by themselves it is said when they are tried again."""
    item = failing("a.b/c:d")
    assert item.condition is not None
    passing = replace(item.condition, passing=True, next_try=NOW + timedelta(minutes=5))
    body = said(replace(item, condition=passing)).body
    assert "What to do: nothing yet, syncd tries again by itself, next at " in body
    body = said(replace(item, condition=replace(passing, next_try=None))).body
    assert "syncd tries again by itself, with each sweep" in body
    body = said(replace(item, condition=passing), failing("a.b/c:e")).body
    assert "What to do: mend what is named above" in body


def test_reminder() -> None:
    """A reminder says that it is one, and since when the failure lasts."""
    item = failing("a.b/c:d")
    told = Told(item.place, True, None, THEN - timedelta(days=3), THEN)
    message = said(replace(item, before=told))
    assert message.title == "syncd on pve1: a.b/c:d still failing"
    assert f"since {told.since.astimezone():%Y-%m-%d %H:%M}" in message.body
    assert "What to do: mend what is named above" in message.body
    assert message.severity is Severity.WARNING


def test_good_news() -> None:
    """What is published is told with its digest, and with what a container of it will lack."""
    row = condition("a.b/c:d", Status.OK)
    before = Told(row.place, True, DIGEST, THEN - timedelta(hours=1), THEN)
    recovered = Item(Event.RECOVERED, row.place, row, before)
    message = said(recovered)
    assert message.title == "syncd on pve1: a.b/c:d recovered"
    since = f"{before.since.astimezone():%Y-%m-%d %H:%M %Z}"
    assert message.body == f"recovered: a.b/c: d, failing since {since}, in t"
    assert message.severity is Severity.SUCCESS

    lacking = replace(row, reason="no container can be made of it")
    message = said(Item(Event.UPDATED, row.place, row), Item(Event.NEW, row.place, lacking))
    assert message.title == "syncd on pve1: a.b/c:d new, a.b/c:d updated"
    assert message.body.splitlines() == [
        f"new: a.b/c: d ({DIGEST.encoded[:12]}), in t",
        "- but no container can be made of it",
        f"updated: a.b/c: d ({DIGEST.encoded[:12]}), in t",
    ]
    assert message.severity is Severity.WARNING


def test_gone() -> None:
    """A failure may end since the registry has the tag no more."""
    row = replace(condition("a.b/c:d", Status.ABSENT), lack=Lack.TAG)
    before = Told(row.place, True, None, THEN, THEN)
    assert said(Item(Event.RECOVERED, row.place, row, before)).body.startswith(
        "gone from the registry: a.b/c: d"
    )
    ended = Item(Event.RECOVERED, Place(Reference.parse("a.b/c"), "t"), None, before)
    assert said(ended).body.startswith("recovered: a.b/c: its list of tags")


def test_mixed() -> None:
    """Failures come first, and what goes on failing is counted."""
    good = condition("a.b/c:d", Status.OK)
    message = said(Item(Event.UPDATED, good.place, good), failing("a.b/c:x"), lasting=3)
    assert message.title == "syncd on pve1: a.b/c:x failing, a.b/c:d updated"
    assert message.body.startswith("failing: ")
    assert "failing as before: 3 tags" in message.body


def test_summary() -> None:
    """The weekly run's summary counts, and names what is failing."""
    summary = Summary(33, tuple(f"a.b/c:v{n}" for n in range(12)), 1, 4, THEN)
    message = said(summary=summary)
    assert message.title == "syncd on pve1: weekly run done"
    counts, named = message.body.splitlines()
    assert counts == (
        "weekly run: 33 in order, 12 failing, 1 gone from the registry; 4 published since "
        f"{THEN.astimezone():%Y-%m-%d}"
    )
    assert named.endswith("a.b/c:v9 and 2 more")
    assert message.severity is Severity.WARNING


def test_returned() -> None:
    """A container that went back to its old root is told with node, image and reason."""
    swap = RootSwap(
        100,
        "n1",
        "a.b/c:d@sha256:1",
        "t",
        "m",
        "r",
        "mp0",
        "unused0",
        1,
        "h",
        True,
        True,
        False,
        "",
    )
    back = Replacement("cluster", swap, reason="the container was not ready after 120 s")
    message = said(returned=[back])
    assert message.title == "syncd on pve1: container 100 not replaced"
    assert message.body.splitlines() == [
        "not replaced: container 100 on n1 in cluster, by a.b/c:d@sha256:1: the container was not "
        "ready after 120 s",
        "The old root is back. What to do: mend the reason, then run `syncd replace 100` on pve1.",
    ]
    assert message.severity is Severity.FAILURE
    both = said(failing("a.b/c:d"), returned=[back, back])
    assert both.title == "syncd on pve1: 2 containers not replaced, a.b/c:d failing"


def test_bounds() -> None:
    """However much there is to tell, a message fits, and its last line is what to do."""
    items = [failing(f"a.b/c{n}:d", f"{'reason' * 500} {n}") for n in range(200)]
    items += [failing(f"a.b/c:v{n}") for n in range(3000)]
    message = said(*items)
    assert message.title == "syncd on pve1: 3200 tags failing"
    assert len(message.body) <= 3500
    *_, more, last = message.body.splitlines()
    assert more == "... and more: syncd status tells all"
    assert last.startswith("What to do: ")
    long = said(*items[200:]).body
    assert "v39 and 2960 more, since " in long
