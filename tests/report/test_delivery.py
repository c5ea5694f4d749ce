"""What `delivery` promises: every receiver gets every message, in order, at least once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.config.settings import Config
from syncd.errors import LedgerError
from syncd.report.delivery import Delivery
from syncd.service.live_config import LiveConfig
from syncd.sync.executors import Executors
from syncd.sync.ledger import Ledger
from syncd.sync.notification import AGE_MAX, Notification, Severity
from tests.fakes.receiver import Receiver

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as served:
        yield served


@pytest.fixture
def other() -> Iterator[Receiver]:
    with Receiver() as served:
        yield served


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as ledger:
        yield ledger


def delivery(
    folder: Path, ledger: Ledger, *receivers: Receiver, patience: float = 20.0
) -> Delivery:
    """Return the delivery of another process, which knows what is in the ledger."""
    (folder / "urls").write_text("\n".join(["# whom to tell", *(each.url for each in receivers)]))
    config = Config.model_validate({"notify": {"urls_file": folder / "urls"}})
    return Delivery(LiveConfig(config), ledger, Executors(1), patience=patience)


def tell(ledger: Ledger, *titles: str) -> None:
    for title in titles:
        message = Notification(f"syncd: {title}", "body", Severity.INFO)
        ledger.notifications.tell(message, [], [], {}, NOW)


def counted(ledger: Ledger) -> dict[str, float]:
    """Return how often attempts ended so."""
    totals = ledger.tally.totals()
    return {labels[0]: n for (what, labels), n in totals.items() if what == "notifications" and n}


async def test_order(tmp_path: Path, ledger: Ledger, receiver: Receiver, other: Receiver) -> None:
    """Messages come in order, to each receiver, and then nothing waits."""
    delivering = delivery(tmp_path, ledger, receiver, other)
    assert await delivering.deliver(NOW) is None
    tell(ledger, "first", "second", "third")
    assert await delivering.deliver(NOW) is None
    assert receiver.titles == other.titles == ["first", "second", "third"]
    assert ledger.notifications.undelivered() == []


async def test_one_refuses(
    tmp_path: Path, ledger: Ledger, receiver: Receiver, other: Receiver
) -> None:
    """Who has a message gets it no more while another receiver refuses, in later processes too."""
    other.status = 500
    tell(ledger, "first", "second")
    assert await delivery(tmp_path, ledger, receiver, other).deliver(NOW) == MINUTE
    first, second = ledger.notifications.undelivered()
    assert first.fault == second.fault == "URL 2 (json) answers 500"
    # In the next process the file names them in another order.
    later = delivery(tmp_path, ledger, other, receiver)
    assert await later.deliver(NOW + MINUTE / 2) == MINUTE / 2
    assert await later.deliver(NOW + MINUTE) == 2 * MINUTE
    other.status = 200
    tell(ledger, "third")
    assert await later.deliver(NOW + 2 * MINUTE) is None
    assert receiver.titles == other.titles == ["first", "second", "third"]
    assert counted(ledger) == {"failed": 4, "delivered": 3}


async def test_at_least_once(
    tmp_path: Path, ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies before it writes that a receiver has a message tells it again."""

    def die(_: object) -> None:
        raise LedgerError("the process died")

    tell(ledger, "first")
    with monkeypatch.context() as patched:
        patched.setattr(ledger.notifications, "delivered", die)
        with pytest.raises(LedgerError):
            await delivery(tmp_path, ledger, receiver).deliver(NOW + MINUTE)
    assert await delivery(tmp_path, ledger, receiver).deliver(NOW + MINUTE) is None
    assert receiver.titles == ["first", "first"]


async def test_one_hangs(
    tmp_path: Path, ledger: Ledger, receiver: Receiver, other: Receiver
) -> None:
    """A receiver that hangs is cut off, and gets the message later; no other gets it again."""
    receiver.open.clear()
    tell(ledger, "first", "second")
    delivering = delivery(tmp_path, ledger, receiver, other, patience=3)
    with capture_logs() as logs:
        assert await delivering.deliver(NOW) == MINUTE
    assert [line["error"] for line in logs] == ["URL 1 gave no answer within 3 s"]
    assert (receiver.titles, other.titles) == ([], ["first", "second"])
    receiver.cut_off()
    assert await delivering.deliver(NOW + MINUTE) is None
    assert receiver.titles == other.titles == ["first", "second"]


async def test_no_urls(tmp_path: Path, ledger: Ledger, receiver: Receiver) -> None:
    """A file that cannot be read keeps the messages waiting; where nobody is named, none waits."""
    tell(ledger, "first")
    delivering = delivery(tmp_path, ledger, receiver)
    file = tmp_path / "urls"
    text = file.read_text()
    file.unlink()
    with capture_logs() as logs:
        assert await delivering.deliver(NOW) == MINUTE
    assert [line["event"] for line in logs] == ["notification not delivered"]
    assert str(file) in ledger.notifications.undelivered()[0].fault
    file.write_text(text)
    assert await delivering.deliver(NOW + MINUTE) is None
    assert receiver.titles == ["first"]
    tell(ledger, "second")
    file.write_text("# nobody")
    assert await delivering.deliver(NOW + MINUTE) is None
    assert receiver.titles == ["first"]
    assert counted(ledger) == {"failed": 1, "delivered": 1}


async def test_too_old(tmp_path: Path, ledger: Ledger, receiver: Receiver) -> None:
    """What nobody took for too long is dropped, and the log says so."""
    receiver.status = 500
    tell(ledger, "first")
    delivering = delivery(tmp_path, ledger, receiver)
    await delivering.deliver(NOW)
    with capture_logs() as logs:
        assert await delivering.deliver(NOW + AGE_MAX + MINUTE) is None
    (line,) = logs
    assert (line["event"], line["title"]) == ("notification dropped", "syncd: first")
    assert line["fault"] == "URL 1 (json) answers 500"
    assert counted(ledger) == {"failed": 1, "dropped": 1}


async def test_a_clock_set_back(tmp_path: Path, ledger: Ledger, receiver: Receiver) -> None:
    """An attempt in the future was by another clock, and delays nothing."""
    receiver.status = 500
    tell(ledger, "first")
    delivering = delivery(tmp_path, ledger, receiver)
    await delivering.deliver(NOW + timedelta(days=3))
    receiver.status = 200
    assert await delivering.deliver(NOW) is None
    assert receiver.titles == ["first"]
