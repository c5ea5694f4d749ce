"""What `receivers` promises: who is told is called by position and scheme, never by the URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import apprise
import pytest

from syncd.report.receivers import Receiver as Told
from syncd.report.receivers import distinct_marks, receivers_of
from syncd.sync.notification import Notification, Severity
from tests.fakes.receiver import PASSWORD, Receiver

NO_URL = "URL 1 is not as Apprise wants it: see https://appriseit.com/services/"
MESSAGE = Notification("a title", "a body\nof <two> lines", Severity.FAILURE)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as served:
        yield served


def test_told(receiver: Receiver) -> None:
    """A receiver gets title, body as it is, and what the message means."""
    (told,) = receivers_of([receiver.url])
    assert told.tell(MESSAGE) is None
    (heard,) = receiver.heard
    assert (heard["title"], heard["message"], heard["type"]) == (
        MESSAGE.title,
        MESSAGE.body,
        "failure",
    )


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (PASSWORD, NO_URL),
        (f"nonsense://user:{PASSWORD}@host", NO_URL),
        (f"json://user:{PASSWORD}@:x", NO_URL),
        (f"json://user:{PASSWORD}@127.0.0.1:1/", "URL 1 (json) cannot be reached"),
        ("refuses", "URL 1 (json) answers 403"),
    ],
)
def test_not_told(
    url: str, fault: str, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said, and the URL neither there nor in a log nor on standard error."""
    receiver.status = 403
    (told,) = receivers_of([receiver.url if url == "refuses" else url])
    assert told.tell(MESSAGE) == fault
    assert PASSWORD not in f"{told!r} {told.name()} {told.fault()} {capfd.readouterr()}"


def test_any_fault(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a service's plugin raises is a fault of the delivery, told by its kind only."""

    def notify(*_: object, **__: object) -> bool:
        raise TypeError(receiver.url)

    monkeypatch.setattr(apprise.Apprise, "notify", notify)
    assert Told(2, receiver.url).tell(MESSAGE) == "URL 2 (json): TypeError"


def test_one_message_though_it_is_long(receiver: Receiver) -> None:
    """A body that is too long for a service is cut, unless its URL says otherwise."""
    long = Notification("t", "x" * 40_000, Severity.INFO)
    assert Told(1, receiver.url).tell(long) is None
    (heard,) = receiver.heard
    assert 30_000 < len(heard["message"]) < 33_000
    assert Told(1, f"{receiver.url}&overflow=split").tell(long) is None
    assert len(receiver.heard) > 2


def test_marks() -> None:
    """A mark tells one URL from another, and is too short to find the URL by."""
    one, two = receivers_of(["json://a", "json://b"])
    assert one.mark != two.mark
    assert len(one.mark) == 4
    assert distinct_marks([one, two]) == {one.mark, two.mark}
    assert distinct_marks([one, one, two]) == {two.mark}


def test_the_docs() -> None:
    """Every URL that the docs show is one that Apprise takes."""
    text = (Path(__file__).parents[2] / "docs/monitor.md").read_text()
    urls = re.findall(r"^\| [^|]+ \| `([a-z]+://[^`]+)` \|$", text, re.MULTILINE)
    assert len(urls) == 6
    assert [receiver.fault() for receiver in receivers_of(urls)] == [None] * len(urls)
