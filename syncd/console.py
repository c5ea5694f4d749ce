"""What a person sees: lines, progress on a terminal, tables, and logs that fit where they are read.

Rich is loaded only where it draws something: most commands print a line or two, and are to be fast.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from syncd.job import Advance, JobRecord
from syncd.template import Template

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

_PIPE_WIDTH = 240  # columns where nobody looks: a table is to be cut by grep, not by us
# Nothing is markup: messages and names may have any brackets.
_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}

_VERBS = {
    "layer": "pulling",
    "flatten": "flattening",
    "publish": "publishing",
    "create": "creating",
}


def say(line: str) -> None:
    """Print a line to standard output; colours only on a terminal."""
    typer.echo(line)


def complain(line: str) -> None:
    """Print a line to standard error."""
    typer.echo(line, err=True)


def show(*tables: Table) -> None:
    """Draw tables on standard output, one below the other."""
    from rich.console import Console

    out = Console(**_PLAIN)
    if not out.is_terminal:
        out.width = _PIPE_WIDTH
    for nth, table in enumerate(tables):
        out.print(*[""] * (nth > 0), table, sep="\n")


class Bars:
    """A progress drawn as bars, one a step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Add a bar."""
        verb = _VERBS.get(step, step)
        task = self._progress.add_task(f"{verb} {_short(subject)}", total=total)
        return lambda amount: self._progress.update(task, advance=amount)


class Lines:
    """A progress told in plain lines, one when a step begins."""

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Print the line."""
        size = f" ({total / 1e6:.1f} MB)" if total else ""
        complain(f"{_VERBS.get(step, step)} {_short(subject)}{size}")
        return lambda _: None


@contextmanager
def progress(*, quiet: bool) -> Iterator[Bars | Lines | None]:
    """Give a progress that suits standard error: bars, lines, or None when quiet."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True, **_PLAIN)) as drawn:
            yield Bars(drawn)
    else:
        yield Lines()


def templates_table(templates: Iterable[Template]) -> Table:
    """Return a table of published templates."""
    from rich.table import Table

    table = Table("reference", "volume", "digest", "size", "published", box=None, pad_edge=False)
    for one in templates:
        table.add_row(
            str(one.reference),
            "\n".join(one.volumes),
            one.digest.encoded[:12],
            f"{one.size / 1e6:.1f} MB",
            _when(one.created) + (" pinned" if one.pinned else ""),
        )
    return table


def jobs_table(records: Iterable[JobRecord]) -> Table:
    """Return a table of jobs."""
    from rich.table import Table

    table = Table("job", "reference", "cause", "created", "outcome", box=None, pad_edge=False)
    for one in records:
        said = f"{one.outcome.result}: {one.outcome.message}" if one.outcome else one.state.value
        table.add_row(
            one.job.id[:8],
            str(one.job.reference),
            one.job.cause,
            _when(one.job.created),
            said,
        )
    return table


def set_up_logs(form: str = "auto", level: int = logging.INFO) -> None:
    """Send structlog, and what libraries log, to standard error.

    `form` is `console`, `json`, or `auto`: JSON under systemd, readable lines elsewhere.
    `level` bounds what syncd itself says; libraries only warn.
    """
    import structlog

    if form == "auto":
        form = "json" if "JOURNAL_STREAM" in os.environ else "console"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        last: structlog.typing.Processor = structlog.processors.JSONRenderer()
        shared.append(structlog.processors.format_exc_info)
    else:
        # Rich's tracebacks would show every local variable, secrets too.
        last = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("syncd").setLevel(level)


def _short(subject: str) -> str:
    """Shorten a digest as the field does: to twelve hex digits."""
    algorithm, colon, encoded = subject.partition(":")
    return encoded[:12] if colon and algorithm in ("sha256", "sha512") else subject


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
