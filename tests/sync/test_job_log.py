"""What `job_log` and its rows promise: a job's own lines, within bounds, kept when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from syncd.cli.logs import set_up_logs
from syncd.oci.reference import Reference
from syncd.sync import job_log, job_log_rows
from syncd.sync.job import Cause, SyncJob
from syncd.sync.job_log import JobLogs, lines_of, lines_text, log_of
from syncd.sync.ledger import Ledger

REFERENCE = Reference.parse("a.b/c:d")


@pytest.fixture
def logs() -> Iterator[JobLogs]:
    """Keep the lines of jobs while the log is set up as the daemon's."""
    set_up_logs("journal")
    logs = JobLogs()
    with logs.attached():
        yield logs
    structlog.reset_defaults()
    logging.basicConfig(force=True)


def logger() -> structlog.stdlib.BoundLogger:
    """Return a logger as the modules of syncd have it."""
    made: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("syncd.test")
    return made


def test_lines_of_a_job(logs: JobLogs) -> None:
    """The lines that carry a job's id are kept with time, level and values; no other line is."""
    with structlog.contextvars.bound_contextvars(job="1", reference="a.b/c:d"):
        logger().info("started", cause="api")
        logger().error("failed", message="no room; make some", volumes=("a", "b"))
        logger().debug("a detail")
    logger().info("elsewhere", job="2")
    logger().info("nobody's")
    logging.getLogger("syncd.test").warning("of a library")
    assert [(line.level, line.text) for line in logs.lines("1")] == [
        ("info", "started cause=api"),
        ("error", 'failed message="no room; make some" volumes="a, b"'),
    ]
    logs.drop("1")
    assert logs.jobs() == ["2"]
    assert logs.lines("1") == []


def test_traceback(logs: JobLogs) -> None:
    """A fault's traceback is kept line by line, behind its event."""
    try:
        raise ValueError("oops")
    except ValueError:
        logger().exception("fault in syncd", job="1")
    lines = [line.text for line in logs.lines("1")]
    assert lines[0] == "fault in syncd"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: oops"


def test_bounds(logs: JobLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest lines stay, each of a bounded length, of a bounded number of jobs."""
    monkeypatch.setattr(job_log, "_JOBS_MAX", 2)
    for number in range(job_log.LINES_MAX + 5):
        logger().info("line", job="1", number=number, text="x" * 5000)
    lines = logs.lines("1")
    assert len(lines) == job_log.LINES_MAX
    assert lines[0].text.startswith("line number=5 ")
    assert {len(line.text) for line in lines} == {job_log.LINE_MAX}
    logger().info("line", job="2")
    logger().info("line", job="3")
    assert logs.jobs() == ["2", "3"]


def test_hostile_names(logs: JobLogs) -> None:
    """A name of any bytes is no fault, and control characters begin no line of their own."""
    logger().info("layer", job="1", subject="a\nb\x1b[2J\udcff")
    (line,) = logs.lines("1")
    assert line.text == 'layer subject="a\\nb\\u001b[2J\\udcff"'
    assert lines_of(lines_text([line])) == [line]


def test_terminals(logs: JobLogs) -> None:
    """No line holds what a terminal obeys, or what turns the order of text; not even a fault's."""
    try:
        raise ValueError("\x1b[2J\x9b31m\u202e")
    except ValueError:
        logger().exception("fault in syncd\r", job="1", subject="\x9b\u202e")
    lines = [line.text for line in logs.lines("1")]
    assert lines[0] == 'fault in syncd\\r subject="\\x9b\\u202e"'
    assert lines[-1] == "ValueError: \\x1b[2J\\x9b31m\\u202e"
    assert all(text.isprintable() for text in lines)


def test_kept_in_the_ledger(tmp_path: Path, logs: JobLogs) -> None:
    """The ledger keeps a job's lines, and puts those of a later attempt behind them."""
    job = SyncJob(REFERENCE, Cause.API)
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.accept([job])
        logger().info("first", job=job.id)
        first = logs.lines(job.id)
        assert log_of(job.id, logs, ledger.logs.of) == first
        ledger.logs.add(job.id, first)
        ledger.logs.add(job.id, [])
        assert log_of(job.id, logs, ledger.logs.of) == first  # which are held and kept just now
        logs.drop(job.id)
        logger().info("second", job=job.id)
        assert [line.text for line in log_of(job.id, logs, ledger.logs.of)] == ["first", "second"]
        ledger.logs.add(job.id, logs.lines(job.id))
        assert [line.text for line in ledger.logs.of(job.id)] == ["first", "second"]
        assert ledger.logs.of(job.id)[0] == first[0]
        assert ledger.logs.of("nobody") == []


def test_expiry(tmp_path: Path, logs: JobLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest jobs keep their logs."""
    monkeypatch.setattr(job_log_rows, "JOBS_MAX", 2)
    jobs = [SyncJob(REFERENCE, Cause.API) for _ in range(3)]
    with Ledger(tmp_path / "ledger") as ledger:
        for job in jobs:
            ledger.accept([job])
            logger().info("line", job=job.id)
            ledger.logs.add(job.id, logs.lines(job.id))
        ledger.expire()
        assert [len(ledger.logs.of(job.id)) for job in jobs] == [0, 1, 1]
