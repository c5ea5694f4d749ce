"""The commands about the ledger as a whole: `backup`, `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from syncd.cli import console
from syncd.cli.app import a_file, chosen
from syncd.config import load_config


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
) -> None:
    """Write the whole ledger into one file, while the daemon runs or not."""
    from syncd.sync import back_up

    back_up(load_config(chosen.path).state.paths.ledger, file)
    console.say(f"{file} {file.stat().st_size / 1e6:.1f} MB")


def restore(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", callback=a_file, help="What syncd backup wrote.")
    ],
) -> None:
    """Put a backup in the place of the ledger, while the daemon is stopped."""
    from syncd.sync import restore as put_back

    ledger = load_config(chosen.path).state.paths.ledger
    old = put_back(file, ledger)
    console.say(f"{ledger} is what {file} was" + (f"; the old ledger is {old}" if old else ""))
