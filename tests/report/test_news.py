"""What `news` promises: people are told of each difference between what is true and what they know.

The differences are decided in pure code; what makes a run one message is tested with the messenger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.config.settings import Config
from syncd.oci.reference import Digest, Reference
from syncd.report.news import Event, News, news_of
from syncd.sync.conditions import Condition, Lack, Place, Status
from syncd.sync.notification import Told

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=2)
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
REPOSITORY = Reference.parse("a.b/c")
FIXED, MATCHING = (Place(REPOSITORY.with_tag(tag), "t") for tag in ("latest", "v1"))
LIST = Place(REPOSITORY, "t")
OK = Condition(FIXED, Status.OK, EARLIER, NOW, digest=ONE, updated=NOW)
FAILING = replace(OK, status=Status.FAILING, reason="down", tries=2)
GONE = replace(OK, status=Status.ABSENT, lack=Lack.TAG, reason="no tag")
NO_FILE = replace(OK, status=Status.ABSENT, lack=Lack.FILE, reason="no file")
TOLD_OK = Told(FIXED, False, ONE, EARLIER, EARLIER)
TOLD_FAILING = replace(TOLD_OK, failing=True)


def config(image: dict[str, Any] | None = None, **notify: Any) -> Config:
    return Config.model_validate(
        {
            "target": [{"name": "t", "type": "directory", "path": "/t"}],
            "image": [
                {"repository": str(REPOSITORY), "tags": ["latest", "re:^v"], **(image or {})}
            ],
            "notify": notify,
        }
    )


def found(
    conditions: Iterable[Condition],
    told: Iterable[Told],
    settings: Config | None = None,
    **more: Any,
) -> News:
    known = {row.place: row for row in told}
    return news_of(settings or config(), conditions, known, NOW, **more)


@pytest.mark.parametrize(
    ("condition", "told", "event"),
    [
        (OK, None, Event.NEW),
        (OK, TOLD_OK, None),
        (replace(OK, digest=TWO), TOLD_OK, Event.UPDATED),
        (OK, TOLD_FAILING, Event.RECOVERED),
        (FAILING, None, Event.FAILING),
        (FAILING, TOLD_OK, Event.FAILING),
        (FAILING, TOLD_FAILING, None),
        (replace(FAILING, reason="another one"), TOLD_FAILING, None),
        (GONE, TOLD_OK, Event.FAILING),
        (GONE, TOLD_FAILING, None),
        (NO_FILE, TOLD_OK, None),
        (replace(GONE, place=MATCHING), replace(TOLD_OK, place=MATCHING), None),
        (replace(GONE, place=MATCHING), replace(TOLD_FAILING, place=MATCHING), Event.RECOVERED),
        (replace(GONE, lack=Lack.WATCH, place=replace(FIXED, target="u")), None, None),
        (None, replace(TOLD_FAILING, place=LIST), Event.RECOVERED),
        (None, replace(TOLD_FAILING, place=replace(FIXED, target="u")), None),
        (replace(FAILING, place=LIST), None, Event.FAILING),
    ],
)  # fmt: skip
def test_events(condition: Condition | None, told: Told | None, event: Event | None) -> None:
    """Each difference is its event; what people know already, and what is not watched, is none."""
    news = found([condition] if condition else [], [told] if told else [])
    assert [item.event for item in news.items] == ([event] if event else [])
    # What is written down now is what people know: the same look finds nothing again.
    known = {row.place: row for row in ([told] if told else [])}
    known |= {row.place: row for row in news.told}
    for place in news.forgotten:
        del known[place]
    again = found([condition] if condition else [], known.values())
    assert (again.items, again.told, again.forgotten) == ((), (), ())


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("condition", [OK, replace(OK, digest=TWO), GONE, FAILING])
def test_unwanted(condition: Condition, heard: bool) -> None:
    """What nobody wants to hear counts as told, but for failures: these are told once wanted."""
    settings = config(on=[]) if heard else config()
    for told in ([], [TOLD_OK], [TOLD_FAILING]):
        news = found([condition], told, settings, heard=heard)
        assert news.items == ()
        failing = condition in (GONE, FAILING)
        assert not (failing and news.told)
    later = found([FAILING], found([FAILING], [], settings, heard=heard).told)
    assert [item.event for item in later.items] == [Event.FAILING]


def test_per_image() -> None:
    """What an image says counts in place of what is said for all."""
    settings = config(image={"notify": ["failing"]}, on=["new"])
    assert found([OK], [], settings).items == ()
    assert len(found([FAILING], [], settings).items) == 1
    silent = config(image={"notify": []})
    assert found([FAILING], [], silent).items == ()


@pytest.mark.parametrize(
    ("remind", "ago", "reminded"),
    [
        ("24h", timedelta(hours=23), False),
        ("24h", timedelta(hours=24), True),
        ("1h", timedelta(hours=2), True),
        ("off", timedelta(days=900), False),
        ("24h", timedelta(days=-1), False),
        ("24h", timedelta(days=-2), True),
    ],
)
def test_reminder(remind: str, ago: timedelta, reminded: bool) -> None:
    """While something is failing people are reminded, as often as is configured."""
    told = replace(TOLD_FAILING, at=NOW - ago)
    news = found([FAILING], [told], config(remind=remind))
    assert [item.is_reminder for item in news.items] == [True] * reminded
    assert [row.at for row in news.told] == [NOW] * reminded
    assert news.lasting == (not reminded)


def test_reminders_come_together() -> None:
    """Who is reminded of a failure is reminded of others, too, that half the span has passed of."""
    second, third = (replace(FAILING, place=Place(REPOSITORY.with_tag(f"v{n}"), "t")) for n in "23")
    day, half, hour = (NOW - timedelta(hours=hours) for hours in (24, 12, 1))
    told = [
        replace(TOLD_FAILING, at=day),
        replace(TOLD_FAILING, place=second.place, at=half),
        replace(TOLD_FAILING, place=third.place, at=hour),
    ]
    news = found([FAILING, second, third], told)
    assert {item.place for item in news.items} == {FIXED, second.place}
    assert news.lasting == 1
