"""The command `check`: the service as it really runs, whoever types.

The daemon is asked where it runs.  Where it does not, root's check is done in a transient unit with
the service's user, sandbox and credentials; and where there is no such unit, in this process.  The
first line says which of these it was.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli.app import Json, chosen, print_json, print_results
from syncd.config import Config, load_config
from syncd.errors import ConfigError, SyncdError
from syncd.targets import CheckResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from syncd.cli.unit import Unit

_WHERE = "check"
_DOWN = ", which does not run"
_STALE = (
    "is another one on disk than the service has: systemctl restart syncd (the socket keeps what "
    "arrives meanwhile)"
)


def check(
    here: Annotated[
        bool, typer.Option("--here", help="Look from this process, not as the service.")
    ] = False,
    secrets: Annotated[
        bool,
        typer.Option(
            "--secrets", help="Look only whether the running service has the secrets of the disk."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the service: configuration, secrets, registries, targets, clock, room, schedule."""
    try:
        found = _found(here=here, secrets=secrets)
    except SyncdError as exc:
        if as_json:
            subject = "configuration" if isinstance(exc, ConfigError) else _WHERE
            print_json([asdict(CheckResult(False, subject, str(exc)))])
        raise
    print_results(found, as_json=as_json)


def _found(*, here: bool, secrets: bool) -> list[CheckResult]:
    """Return what is found from where it is to be looked; raise SyncdError if nobody can look."""
    config = load_config(chosen.path)
    if secrets:
        return _secrets(chosen.path) or [CheckResult(True, "secrets", "as on disk")]
    if here:
        return _here(config)
    return _by_daemon(config, chosen.path) or _as_service(config, chosen.path)


def _by_daemon(config: Config, path: Path | None) -> list[CheckResult]:
    """Return what the running daemon finds; nothing where it runs no such configuration."""
    from syncd.cli.daemon import LONG, running_daemon, same_file

    daemon = running_daemon(config)
    if daemon is None:
        return []
    told = daemon.get("daemon")
    if not same_file(told["config"], path):
        return []
    detail = f"as {_user(told['uid'])}, by the running service (process {told['pid']})"
    found = [CheckResult(**one) for one in daemon.get("check", LONG)["results"]]
    return [CheckResult(True, _WHERE, detail), *_secrets(path), *found]


def _as_service(config: Config, path: Path | None) -> list[CheckResult]:
    """Return what is found where no daemon runs this configuration."""
    from syncd.cli.unit import FAULTS, NAME, unit_of

    unit = unit_of(path)
    daemon = _daemon_seen(config)
    if unit is None:
        why = "there is no unit of it" if os.geteuid() == 0 else "you are not root"
        return _here(config, f"{daemon or 'no daemon runs it'}, and {why}")
    try:
        ended = unit.run(["check", "--here", "--json"])
    except (OSError, subprocess.TimeoutExpired) as exc:
        return _here(config, f"no unit like {NAME}.service can be run: {exc}")
    found = _read(ended.printed)
    if found:
        where, *rest = found
        who = where.detail.partition(",")[0]
        how = f"{who}, in a unit like {NAME}.service{f': {daemon}' if daemon else _DOWN}"
        return [CheckResult(True, _WHERE, how), *rest]
    why = FAULTS.get(ended.status, f"journalctl -u '{NAME}-check-*' says why")
    return [CheckResult(False, "service", f"systemd cannot start it ({ended.status}): {why}")]


def _daemon_seen(config: Config) -> str:
    """Say which daemon uses the state though it cannot be asked for this file; "" where none."""
    from syncd.cli.daemon import running_daemon
    from syncd.service import lock_holder

    daemon = running_daemon(config)
    if daemon is not None:
        told = daemon.get("daemon")
        file = told["config"] or "no file"
        return f"the daemon of its state (process {told['pid']}) has read {file}"
    holder = lock_holder(config.state.paths.daemon_lock)
    if holder is None:
        return ""
    return (
        f"a daemon (process {holder}) uses its state, but nobody answers on {config.socket} "
        "(restart the daemon: systemctl restart syncd)"
    )


def _here(config: Config, why: str = "") -> list[CheckResult]:
    """Return what this process finds."""
    from syncd.service import check_results

    detail = f"as {_user(os.geteuid())}, by this process{f': {why}' if why else ''}"
    return [CheckResult(True, _WHERE, detail), *check_results(config)]


def _secrets(path: Path | None) -> list[CheckResult]:
    """Return the secrets that changed since the service started; only root can tell."""
    from syncd.cli.unit import unit_of

    unit: Unit | None = unit_of(path)
    changed: Sequence[str] = unit.changed_credentials() if unit else ()
    return [CheckResult(False, f"secret {name}", _STALE) for name in changed]


def _read(printed: str) -> list[CheckResult]:
    """Return the results that a check printed as JSON; nothing for anything else."""
    try:
        return [CheckResult(**one) for one in json.loads(printed)]
    except (ValueError, TypeError):
        return []


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
