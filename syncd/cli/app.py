"""The application of the command line, and what its commands share: options and printing."""

from __future__ import annotations

import enum
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from syncd import __version__
from syncd.cli import console
from syncd.config import locate

if TYPE_CHECKING:
    from syncd.targets import CheckResult


class _Group(typer.core.TyperGroup):
    """The commands of syncd, whose option `--config` may stand behind the command as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options; `--config FILE` counts wherever it stands before a `--`."""
        end = args.index("--") if "--" in args else len(args)
        if args[:end][-1:] == ["--config"]:
            return super().parse_args(ctx, ["--config"])  # which tells that FILE is missing
        first: list[str] = []
        rest: list[str] = []
        words = iter(args[:end])
        for word in words:
            if word == "--config":
                first += [word, *itertools.islice(words, 1)]
            else:
                (first if word.startswith("--config=") else rest).append(word)
        return super().parse_args(ctx, first + rest + args[end:])


app = typer.Typer(
    name="syncd",
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keeps Proxmox VE's template storage in step with a container registry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Refs = Annotated[
    list[str] | None, typer.Argument(metavar="[REF]...", help="Without any: everything watched.")
]


class LogForm(enum.StrEnum):
    """How the daemon writes its log."""

    AUTO = "auto"
    CONSOLE = "console"
    JOURNAL = "journal"
    JSON = "json"


@dataclass(slots=True)
class _Chosen:
    """What the options before the command chose."""

    path: Path | None = None


chosen = _Chosen()
"""The options before the command, of this process."""


def a_file(path: Path | None) -> Path | None:
    """Return the path of an option or argument; raise BadParameter where it can name no file."""
    if path is not None and not path.name:
        raise typer.BadParameter("name a file")
    return path


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"syncd {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            callback=a_file,
            help="The configuration; else $SYNCD_CONFIG, /etc/syncd/syncd.toml, or the default.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - typer calls its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    chosen.path = locate(config)


def warn(warnings: Iterable[str]) -> None:
    """Print warnings to standard error."""
    for warning in warnings:
        console.complain(f"warning: {warning}")


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    with console.printing():
        typer.echo(json.dumps(value, indent=2))


def print_results(found: Sequence[CheckResult], *, as_json: bool) -> None:
    """Print what was looked at, good and bad; exit with 1 if anything is bad."""
    if as_json:
        print_json([*map(asdict, found)])
    else:
        for result in found:
            mark = typer.style("ok  ", fg="green") if result.ok else typer.style("FAIL", fg="red")
            console.say(f"{mark} {result.subject}: {result.detail}")
    if not all(result.ok for result in found):
        raise typer.Exit(1)
