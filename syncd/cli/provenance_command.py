"""The command `provenance`: what an image says of itself, as its build wrote it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from syncd.cli import console
from syncd.cli.app import chosen
from syncd.config import load_config
from syncd.errors import SyncdError


def provenance(
    volume: Annotated[str, typer.Argument(help="A template, STORAGE:vztmpl/NAME.")],
) -> None:
    """Print the attestations that a template's image brought, as JSON Lines."""
    from syncd.sync import Ledger, attestations_of_volume, json_lines

    with Ledger(load_config(chosen.path).state.paths.ledger) as ledger:
        brought = attestations_of_volume(ledger, volume)
    if brought is None:
        raise SyncdError(f"syncd published no {volume}", "syncd status names what it published")
    with console.printing():
        sys.stdout.buffer.write(json_lines(brought))
        sys.stdout.buffer.flush()
