"""What a person sees: lines, and progress on a terminal.

Rich is loaded only where it draws something: most commands print a line or two, and are to be fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from syncd.progress import Advance

if TYPE_CHECKING:
    from rich.progress import Progress

# Nothing is markup: messages and names may have any brackets.
_PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}

_VERBS = {
    "wait": "waiting for",
    "convert": "converting",
    "layer": "pulling",
    "parts": "pulling parts of",
    "cached": "reading",
    "flatten": "flattening",
    "publish": "publishing",
    "create": "creating",
    "replace": "replacing",
}


PRINTED = "standard output"
"""The file's name of an OSError that came from printing."""


@contextmanager
def printing() -> Iterator[None]:
    """Name standard output in an OSError of this context: write(2) names no file."""
    try:
        yield
    except OSError as exc:
        exc.filename = PRINTED
        raise


def say(line: str) -> None:
    """Print a line to standard output; colours only on a terminal, and not with NO_COLOR."""
    with printing():  # https://no-color.org
        typer.echo(line, color=False if os.environ.get("NO_COLOR") else None)


def complain(line: str) -> None:
    """Print a line to standard error."""
    typer.echo(line, err=True)


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


def _short(subject: str) -> str:
    """Shorten a digest as the field does: to twelve hex digits."""
    algorithm, colon, encoded = subject.partition(":")
    return encoded[:12] if colon and algorithm in ("sha256", "sha512") else subject
