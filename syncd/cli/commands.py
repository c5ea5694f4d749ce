"""The command line.  Exit codes: 0 done, 1 failed, 2 usage or configuration.

Each group of commands has a module; here they become commands, in the order of the help.
"""

from __future__ import annotations

from typing import Annotated

import typer

from syncd.cli.app import LogForm, app, chosen
from syncd.cli.check_command import check
from syncd.cli.container_commands import NumberedOptions, containers, create
from syncd.cli.image_commands import convert, resolve, sync
from syncd.cli.init_command import init
from syncd.cli.jobs_command import jobs
from syncd.cli.ledger_commands import backup, restore
from syncd.cli.notify_command import notify
from syncd.cli.provenance_command import provenance
from syncd.cli.replace_command import replace
from syncd.cli.upkeep_commands import pin, prune, status, unpin, verify

__all__ = ["app"]


def run(
    log: Annotated[
        LogForm,
        typer.Option(envvar="SYNCD_LOG", help="auto is journal under systemd, console elsewhere."),
    ] = LogForm.AUTO,
) -> None:
    """Run the daemon: webhooks, schedule, API and signals."""
    import asyncio

    from syncd.cli.logs import set_up_logs
    from syncd.service import daemon

    set_up_logs(log)
    asyncio.run(daemon.run(chosen.path))


for command in (
    *(init, run, sync, convert, resolve, create, containers, replace),
    *(status, jobs, pin, unpin, prune, verify, provenance, check, notify, backup, restore),
):
    app.command(cls=NumberedOptions if command is create else None)(command)
