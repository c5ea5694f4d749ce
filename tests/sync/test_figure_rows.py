"""What `figure_rows` promises: the figures of what is published, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from syncd.oci.reference import Digest
from syncd.sync.figure_rows import StorageFigures, TemplateFigures
from syncd.sync.ledger import Ledger
from syncd.sync.notification import Notification, Severity
from tests.sync.test_ledger import OTHER, REFERENCE, TEMPLATE

NEWER = Digest("sha256", "9" * 64)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_templates(ledger: Ledger) -> None:
    """Of each digest of a tag in a target what was recorded last counts; no mere intention does."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    ledger.record(replace(TEMPLATE, name="first", size=1))
    ledger.record(replace(TEMPLATE, name="second", size=2, created=at))
    ledger.record(replace(TEMPLATE, name="newer", size=3, created=at, digest=NEWER))
    ledger.intend(replace(TEMPLATE, name="intended", size=4))
    key = (str(REFERENCE), "t")
    assert ledger.figures.templates() == {
        (*key, str(TEMPLATE.digest)): TemplateFigures(2, at),
        (*key, str(NEWER)): TemplateFigures(3, at),
    }


def test_storages(ledger: Ledger) -> None:
    """A file that two tags mean is one file of its target."""
    ledger.record(replace(TEMPLATE, name="shared", size=100))
    ledger.record(replace(TEMPLATE, name="shared", size=100, reference=OTHER))
    ledger.record(replace(TEMPLATE, name="own", size=7))
    ledger.record(replace(TEMPLATE, name="shared", size=100, target="u"))
    ledger.intend(replace(TEMPLATE, name="intended", size=4))
    assert ledger.figures.storages() == {
        "t": StorageFigures(2, 107),
        "u": StorageFigures(1, 100),
    }


def test_undelivered(ledger: Ledger) -> None:
    """Every notification counts until it is delivered."""
    assert ledger.figures.undelivered() == 0
    at = datetime(2026, 11, 1, tzinfo=UTC)
    for _ in range(2):
        message = Notification("title", "body", Severity.INFO)
        ledger.notifications.tell(message, [], [], {}, at)
    first, _ = ledger.notifications.undelivered()
    ledger.notifications.delivered([first.number])
    assert ledger.figures.undelivered() == 1


def test_runs(ledger: Ledger) -> None:
    """Runs are told as they were marked, and one that never was marked is not made up."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    assert ledger.figures.runs() == {}
    ledger.mark_run("sweep", at)
    assert ledger.figures.runs() == {"sweep": at}
