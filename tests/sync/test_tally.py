"""What `tally`, `total_rows` and `job_end` promise: nothing is counted twice or forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import LedgerError, LedgerUnavailableError
from syncd.oci.reference import Reference
from syncd.sync.job import Cause, Outcome, Result, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.tally import BOUNDS, SUM, Counted, Step
from syncd.sync.total_rows import IMAGE, REPOSITORY

TAG = Reference.parse("ghcr.io/o/n:latest")
DIGEST = Reference.parse(f"ghcr.io/o/n@sha256:{'a' * 64}")
REPOSITORY_ITSELF = Reference.parse("localhost:5000/o/n")
FETCHED = (Counted.FETCHED, ("ghcr.io",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    with Ledger(path) as opened:
        yield opened


def test_restart(ledger: Ledger, path: Path) -> None:
    """What was written down is gone on with, whichever process counts."""
    ledger.tally.add(*_of(FETCHED), amount=3)
    assert ledger.tally.totals() == {FETCHED: 3}
    with Ledger(path) as another:
        assert another.tally.totals() == {}
    ledger.tally.write()
    ledger.tally.add(*_of(FETCHED), amount=4)
    with Ledger(path) as another:
        assert another.tally.totals() == {FETCHED: 3}
        another.tally.add(*_of(FETCHED), amount=10)
        another.tally.write()
    assert ledger.tally.totals() == {FETCHED: 7}
    ledger.tally.write()
    assert ledger.tally.totals() == {FETCHED: 17}
    ledger.tally.write()
    assert ledger.tally.totals() == ledger.totals.all() == {FETCHED: 17}


def test_nothing_is_lost_to_a_fault(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written now counts all the same, and is written the next time."""
    ledger.tally.add(*_of(FETCHED), amount=3)

    def full(*_: object) -> None:
        ledger.tally.add(*_of(FETCHED), amount=1)
        raise LedgerUnavailableError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.totals, "add", full)
        with pytest.raises(LedgerUnavailableError):
            ledger.tally.write()
    assert ledger.tally.totals() == {FETCHED: 4}
    assert ledger.totals.all() == {}
    ledger.tally.write()
    assert ledger.tally.totals() == ledger.totals.all() == {FETCHED: 4}


def test_totals_never_go_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no moment of a writing is a total another than what was counted."""
    seen: list[float] = []
    add, read = ledger.totals.add, ledger.totals.all

    def adding(amounts: dict[tuple[str, tuple[str, ...]], float]) -> None:
        seen.append(ledger.tally.totals()[FETCHED])
        add(amounts)
        seen.append(ledger.tally.totals()[FETCHED])

    def reading() -> dict[tuple[str, tuple[str, ...]], float]:
        seen.append(ledger.tally.totals()[FETCHED])
        return read()

    monkeypatch.setattr(ledger.totals, "add", adding)
    monkeypatch.setattr(ledger.totals, "all", reading)
    for _ in range(2):
        ledger.tally.add(*_of(FETCHED), amount=5)
        ledger.tally.write()
    assert seen == [5, 5, 5, 10, 10, 10]


def test_threads(ledger: Ledger) -> None:
    """Many threads count, and others write, and each count is in the ledger once."""
    start = threading.Barrier(8)

    def count(number: int) -> None:
        start.wait()
        for _ in range(300):
            ledger.tally.add(*_of(FETCHED))
            if number == 0:
                ledger.tally.totals()
        ledger.tally.write()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert ledger.tally.totals() == ledger.totals.all() == {FETCHED: 2400}


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [(0.0, "0.05"), (0.05, "0.05"), (0.0501, "0.1"), (3600.0, "3600.0"), (3600.1, "inf")],
)
def test_durations(seconds: float, bound: str, ledger: Ledger) -> None:
    """A duration counts under the smallest bound that it does not exceed, and in the sum."""
    ledger.tally.took(Step.PULL, seconds)
    what = Counted.STEP_SECONDS
    assert ledger.tally.totals() == {(what, ("pull", bound)): 1, (what, ("pull", SUM)): seconds}
    assert float(bound) in BOUNDS


async def test_steps(ledger: Ledger) -> None:
    """A step that ends without an error is counted, and one that fails is not."""

    async def work(fault: Exception | None) -> str:
        if fault is not None:
            raise fault
        return "done"

    assert await ledger.tally.step(Step.READ, work(None)) == "done"
    with pytest.raises(ValueError, match="no"):
        await ledger.tally.step(Step.LOOK, work(ValueError("no")))
    assert {labels[0] for _, labels in ledger.tally.totals()} == {"read"}


def test_jobs(ledger: Ledger, path: Path) -> None:
    """Each end of a job is counted once, with its cause, its result, and what was looked at."""
    ended = [
        (SyncJob(TAG, Cause.WEBHOOK), Result.PUBLISHED),
        (SyncJob(DIGEST, Cause.API), Result.FAILED),
        (SyncJob(REPOSITORY_ITSELF, Cause.WEBHOOK), Result.PUBLISHED),
        (SyncJob(TAG, Cause.WEBHOOK), Result.PUBLISHED),
    ]
    ledger.accept(job for job, _ in ended)
    for job, result in ended:
        ledger.start(job.id)
        ledger.finish(job.id, Outcome(result, "done"))
        ledger.finish(job.id, Outcome(result, "done"))
    ledger.finish("nobody", Outcome(Result.FAILED, "unknown"))
    expected = {
        ("webhook", "published", IMAGE): 2,
        ("api", "failed", IMAGE): 1,
        ("webhook", "published", REPOSITORY): 1,
    }
    assert ledger.totals.jobs() == expected
    with Ledger(path) as another:
        assert another.totals.jobs() == expected


def test_forgotten_jobs_stay_counted(ledger: Ledger) -> None:
    """Jobs that the ledger drops after their time stay counted."""
    job = SyncJob(TAG, Cause.SWEEP)
    ledger.accept([job])
    ledger.finish(job.id, Outcome(Result.UNCHANGED, "done"))
    ledger._write("UPDATE jobs SET created = '2020-01-01'")
    ledger.expire()
    assert ledger.job(job.id) is None
    assert ledger.totals.jobs() == {("sweep", "unchanged", IMAGE): 1}


def test_a_damaged_row(ledger: Ledger, path: Path) -> None:
    """A row that means nothing is passed over, and the others count."""
    ledger.tally.add(*_of(FETCHED))
    ledger.tally.write()
    ledger._write("INSERT INTO totals VALUES ('fetched', '[1]', 1), ('fetched', 'no', 1)")
    with capture_logs() as logs, Ledger(path) as another:
        assert another.tally.totals() == {FETCHED: 1}
    assert [line["event"] for line in logs] == ["row of the ledger passed over"] * 2


def test_no_table(ledger: Ledger, path: Path) -> None:
    """A ledger that cannot tell its totals is not opened, and no connection is left."""
    ledger._db.execute("DROP TABLE totals")
    with pytest.raises(LedgerError, match="totals"):
        Ledger(path)


def _of(series: tuple[Counted, tuple[str, ...]]) -> tuple[Counted, *tuple[str, ...]]:
    return (series[0], *series[1])
