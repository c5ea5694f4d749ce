"""What `status_text` promises: what is true is read at a glance, on a narrow terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click import unstyle

from syncd.cli.status_text import job_lines, log_lines, status_lines
from syncd.oci import Digest, Reference
from syncd.sync.conditions import (
    Condition,
    Current,
    Failed,
    Finding,
    Gone,
    Lack,
    Place,
    condition_after,
)
from syncd.sync.job import Cause, JobRecord, LayerBytes, Outcome, Result, State, SyncJob
from syncd.sync.job_log import LogLine
from syncd.sync.job_views import job_detail_json, job_json
from syncd.sync.views import condition_json

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
REPOSITORY = Reference.parse("ghcr.io/mieweb/opensource-server/base")
VOLUME = "cluster:vztmpl/ghcr.io_mieweb_opensource-server_base_latest_0123456789ab.tar.zst"
FINE = Current(Digest.of(b"one"), (VOLUME,))
DOWN = Failed("registry ghcr.io answers 503 for the tag: " + "it is overloaded " * 9, passing=True)


def held(tag: str, *findings: Finding) -> Condition:
    """Return the condition of a tag after findings, a minute apart."""
    condition = None
    for nth, finding in enumerate(findings):
        place = Place(REPOSITORY.with_tag(tag), "cluster")
        condition = condition_after(place, condition, finding, NOW + nth * timedelta(minutes=1))
    assert condition is not None
    return condition


CONDITIONS = [
    held("fine", FINE),
    held("lost", FINE, Gone(Lack.TAG, "the registry has no such tag")),
    held("down", FINE, DOWN, DOWN),
]
JOB = JobRecord(
    SyncJob(REPOSITORY, Cause.SWEEP, created=NOW),
    State.DONE,
    outcome=Outcome(Result.FAILED, "[bold]what it says[/bold]"),
)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def lines() -> list[str]:
    conditions = map(condition_json, CONDITIONS)
    return [unstyle(line) for line in status_lines(conditions, [], [job_json(JOB)])]


def test_order() -> None:
    """What fails comes first, then what is absent, then what is well."""
    heads = [line for line in lines() if line.startswith(("failing", "absent", "ok"))]
    assert heads == [
        f"failing {REPOSITORY}:down",
        f"absent  {REPOSITORY}:lost",
        f"ok      {REPOSITORY}:fine",
    ]


def test_width() -> None:
    """No line has more than eighty columns but for what must stay whole."""
    long = [line for line in lines() if len(line) > 80]
    assert {line.strip() for line in long} == {VOLUME}


def test_what_is_told() -> None:
    """A failure tells where, since when, how often, why, and when it is tried next."""
    text = " ".join(line.strip() for line in lines())
    when = f"{(NOW + timedelta(minutes=1)).astimezone():%Y-%m-%d %H:%M %Z}"
    assert f"in cluster since {when}, 2 tries, next at " in text
    assert DOWN.reason.strip() in text
    assert "syncd prune --gone" in text
    assert text.count(VOLUME) == 3
    assert "failed: [bold]what it says[/bold]" in text


def test_log() -> None:
    """A line of a job's log has its day and its zone: a job may be looked at days later."""
    log = [LogLine(NOW, "info", "started cause=sweep")]
    when = f"{NOW.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    assert [*log_lines(job_detail_json(JOB, log))][-1] == f"  {when} started cause=sweep"


def test_nothing() -> None:
    """An empty ledger is told as that."""
    assert list(status_lines([], [], [])) == ["nothing is published yet, and nothing was looked at"]


def test_bytes_of_layers() -> None:
    """A job tells how much of its layers came and how much was here, where it needed any."""
    outcome = Outcome(Result.PUBLISHED, "it is", layers=LayerBytes(2_130_000, 209_800_000))
    told = [*job_lines([job_json(replace(JOB, outcome=outcome))])]
    assert told[-1] == "  layers: 2.1 MB fetched, 209.8 MB saved"
    assert not any("layers" in line for line in job_lines([job_json(JOB)]))
