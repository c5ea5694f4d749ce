"""Jobs as JSON, as the API and the command line show them: how they stand, how far, their log.

The types are also the source of the API's description, as those of `syncd.sync.views` are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic reads typing's own only since Python 3.12

from syncd.sync.activity import JobProgress
from syncd.sync.job import Cause, JobRecord, Result, State
from syncd.sync.job_log import LogLine
from syncd.sync.view_types import EXACT, Moment, VolumeId


@with_config(EXACT)
class ProgressView(TypedDict):
    """How far the step of a running job is, over all parts of it that have begun."""

    step: Annotated[str, Field(description="wait, layer, flatten, publish, or another step.")]
    subject: Annotated[str, Field(description="A layer's digest, a file's name, or a host's.")]
    done: Annotated[int, Field(ge=0, description="Bytes that are done.")]
    total: Annotated[int | None, Field(description="Bytes in all; null where nobody knows.")]


@with_config(EXACT)
class JobView(TypedDict):
    """A job: a reference that is brought up to date, why, and how that ended."""

    id: str
    reference: Annotated[
        str,
        Field(
            description="What is looked at; without tag and digest, every watched tag of the "
            "repository."
        ),
    ]
    cause: Cause
    state: State
    progress: Annotated[
        ProgressView | None,
        Field(description="How far a running job is; null where it moves none."),
    ]
    outcome: Annotated[Result | None, Field(description="How the job ended; null until it did.")]
    message: Annotated[str | None, Field(description="One sentence on how the job ended.")]
    volumes: Annotated[tuple[VolumeId, ...], Field(description="Where the template is now.")]
    warnings: Annotated[tuple[str, ...], Field(description="Sentences for whoever asked.")]
    fetched: Annotated[int, Field(ge=0, description="Bytes of layers that were fetched.")]
    saved: Annotated[int, Field(ge=0, description="Bytes of layers that were here already.")]
    created: Moment
    started: Moment | None
    finished: Moment | None


@with_config(EXACT)
class LogLineView(TypedDict):
    """A line of a job's log."""

    at: Moment
    level: Annotated[str, Field(description="info, warning, error or critical.")]
    text: str


@with_config(EXACT)
class JobDetailView(JobView):
    """A job and its log: the newest lines that the journal got of it."""

    log: list[LogLineView]


def job_json(record: JobRecord, progress: JobProgress | None = None) -> JobView:
    """Return a job as JSON, with its progress where it runs in this process."""
    job, outcome = record.job, record.outcome
    return {
        "id": job.id,
        "reference": str(job.reference),
        "cause": job.cause,
        "state": record.state,
        "progress": progress_json(progress) if progress else None,
        "outcome": outcome.result if outcome else None,
        "message": outcome.message if outcome else None,
        "volumes": outcome.volumes if outcome else (),
        "warnings": outcome.warnings if outcome else (),
        "fetched": outcome.layers.fetched if outcome else 0,
        "saved": outcome.layers.saved if outcome else 0,
        "created": job.created.isoformat(),
        "started": record.started.isoformat() if record.started else None,
        "finished": record.finished.isoformat() if record.finished else None,
    }


def progress_json(progress: JobProgress) -> ProgressView:
    """Return the progress of a running job as JSON."""
    return {
        "step": progress.step,
        "subject": progress.subject,
        "done": progress.done,
        "total": progress.total,
    }


def job_detail_json(
    record: JobRecord, lines: Iterable[LogLine], progress: JobProgress | None = None
) -> JobDetailView:
    """Return a job as JSON, with its log."""
    return {**job_json(record, progress), "log": [*map(line_json, lines)]}


def line_json(line: LogLine) -> LogLineView:
    """Return a line of a log as JSON."""
    return {"at": line.at.isoformat(), "level": line.level, "text": line.text}
