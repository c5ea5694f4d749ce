"""The command `jobs`: what runs and ran, with its log; and the end of a job that is not wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli import console
from syncd.cli.app import Json, chosen, print_json
from syncd.config import Config
from syncd.errors import RequestError, SyncdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syncd.cli.daemon import Daemon
    from syncd.sync import JobDetailView, JobView

_NEWEST = 1000  # jobs among which a beginning of an id is looked for


def jobs(
    job: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One job; the beginning of its id will do.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=_NEWEST, help="How many, the newest.")] = 20,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the job ID.")] = False,
    as_json: Json = False,
) -> None:
    """Show what runs and ran; with an ID, one job with its log."""
    from syncd.cli.daemon import daemon_or_config
    from syncd.cli.status_text import job_lines, log_lines

    asked = daemon_or_config(chosen.path)
    if job == "" or (cancel and job is None):
        raise RequestError("no job is named", "syncd jobs lists the newest")
    found: Sequence[JobView] = _newest(asked, limit if job is None else _NEWEST)
    lines = job_lines(found)
    if job is not None:
        wanted = _one(found, job)
        if cancel:
            _cancel(asked, wanted)
        detail = _detail(asked, wanted)
        found, lines = [detail], log_lines(detail)
    if as_json:
        print_json(found)
    else:
        for line in lines:
            console.say(line)


def _one(found: Sequence[JobView], job: str) -> str:
    """Return the id of the one job whose id begins so; raise SyncdError where there is not one."""
    fitting = [one["id"] for one in found if one["id"].startswith(job)]
    if len(fitting) != 1:
        raise SyncdError(
            f"{len(fitting)} of the newest {_NEWEST} jobs have an id that begins with {job}",
            "syncd jobs lists the newest",
        )
    return fitting[0]


def _newest(asked: Daemon | Config, limit: int) -> Sequence[JobView]:
    """Return the newest jobs, from the daemon or from the ledger."""
    from syncd.cli.daemon import Daemon
    from syncd.sync import Ledger, job_json

    if isinstance(asked, Daemon):
        told: Sequence[JobView] = asked.get("jobs", limit=limit)["jobs"]
        return told
    with Ledger(asked.state.paths.ledger) as ledger:
        return [*map(job_json, ledger.board.left(limit))]


def _detail(asked: Daemon | Config, job: str) -> JobDetailView:
    """Return a job with its log, from the daemon or from the ledger."""
    from syncd.cli.daemon import Daemon
    from syncd.sync import Ledger, job_detail_json

    if isinstance(asked, Daemon):
        told: JobDetailView = asked.get(f"jobs/{job}")
        return told
    with Ledger(asked.state.paths.ledger) as ledger:
        found = [one for one in ledger.board.left(_NEWEST) if one.job.id == job]
        if not found:
            raise SyncdError(f"the ledger does not know the job {job} any more")
        return job_detail_json(found[0], ledger.logs.of(job))


def _cancel(asked: Daemon | Config, job: str) -> None:
    """Have the daemon end a job; raise SyncdError where none runs, or the job is over."""
    from syncd.cli.daemon import Daemon

    if not isinstance(asked, Daemon):
        raise SyncdError("no daemon runs, and so none of its jobs does")
    asked.post(f"jobs/{job}/cancel", {})
