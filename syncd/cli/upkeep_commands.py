"""The commands of upkeep: `status`, `pin`, `unpin`, `prune`, `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli import console
from syncd.cli.app import DryRun, Json, chosen, print_json, warn
from syncd.config import Config, load_config, parse_span
from syncd.errors import UnknownVolumeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from syncd.service import Services
    from syncd.sync import (
        ConditionView,
        ExaminedView,
        JobView,
        PrunedView,
        Retained,
        TemplateView,
        VerifiedView,
    )

_NEWEST = 20  # jobs that status shows


def status(as_json: Json = False) -> None:
    """Show what is true of each watched tag, what is cached, and the newest jobs."""
    from syncd.cli.daemon import Daemon, daemon_or_config
    from syncd.cli.status_text import status_lines

    asked = daemon_or_config(chosen.path)
    if isinstance(asked, Daemon):
        told = asked.get("images")
        conditions, templates = told["conditions"], told["templates"]
        jobs = asked.get("jobs", limit=_NEWEST)["jobs"]
    else:
        conditions, templates, jobs = _in_ledger(asked)
    if as_json:
        print_json({"conditions": conditions, "templates": templates, "jobs": jobs})
    else:
        for line in status_lines(conditions, templates, jobs):
            console.say(line)


def _in_ledger(
    config: Config,
) -> tuple[list[ConditionView], list[TemplateView], list[JobView]]:
    """Return what the ledger holds, as the API tells it."""
    from syncd.sync import Ledger, condition_json, conditions_now, job_json, templates_json

    with Ledger(config.state.paths.ledger) as ledger:
        conditions = conditions_now(config, ledger.conditions.all())
        templates, jobs = templates_json(ledger), ledger.board.left(_NEWEST)
    return (
        [*map(condition_json, conditions)],
        templates,
        [*map(job_json, jobs)],
    )


def pin(volume: str) -> None:
    """Keep a template for ever, whatever retention says."""
    _pin(volume, pinned=True)


def unpin(volume: str) -> None:
    """Let retention judge a template again."""
    _pin(volume, pinned=False)


def _pin(volume: str, *, pinned: bool) -> None:
    from syncd.cli.daemon import running_daemon
    from syncd.sync import Ledger

    config = load_config(chosen.path)
    if daemon := running_daemon(config):
        daemon.post("pin", {"volume": volume, "pinned": pinned})
        return
    with Ledger(config.state.paths.ledger) as ledger:
        if not ledger.pin(volume, pinned=pinned):
            raise UnknownVolumeError(volume)


def prune(
    gone: Annotated[
        bool,
        typer.Option("--gone", help="Delete what the registry lost, and what is not watched."),
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="With --gone: what has been gone so long, like 30d."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete the versions that retention lets go; with --gone, those of tags that are gone."""
    from syncd.cli.daemon import LONG, running_daemon

    if older_than is not None and not gone:
        raise typer.BadParameter("goes together with --gone", param_hint="--older-than")
    try:
        span = parse_span(older_than or "0s")
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--older-than") from exc
    config = load_config(chosen.path)
    pruned: Sequence[PrunedView]
    spared: Sequence[PrunedView]
    if daemon := running_daemon(config):
        seconds = int(span.total_seconds())
        body = {"gone": gone, "older_than": seconds, "dry_run": dry_run}
        told = daemon.post("prune", body, LONG)
        pruned, spared, warnings = told["pruned"], told["spared"], told["warnings"]
    else:
        pruned, spared, warnings = _pruned(config, span if gone else None, dry_run=dry_run)
    if as_json:
        print_json(pruned)
    else:
        verb = "would delete" if dry_run else "deleted"
        for template in pruned:
            console.say(f"{verb} {' '.join(template['volumes'])}")
        for volume in (volume for template in spared for volume in template["volumes"]):
            console.say(f"spared {volume}, which is pinned: syncd unpin {volume}")
    warn(warnings)
    if warnings:
        raise typer.Exit(1)


def _pruned(
    config: Config, span: timedelta | None, *, dry_run: bool
) -> tuple[list[PrunedView], list[PrunedView], Sequence[str]]:
    """Prune in this process, what has been gone for `span` or what is surplus.

    Return what was deleted, what is spared because it is pinned, and warnings.
    """
    from syncd.cli import oneshot
    from syncd.sync import pruned_json

    async def delete(services: Services) -> Retained:
        if span is not None:
            return await services.reaper.reap(span, dry_run=dry_run)
        return await services.reaper.retain(dry_run=dry_run)

    retained = oneshot.run(config, delete, quiet=True)
    pruned, spared = map(pruned_json, retained.gone), map(pruned_json, retained.spared)
    return [*pruned], [*spared], retained.warnings


def verify(
    ref: Annotated[str | None, typer.Argument(help="Without it: everything published.")] = None,
    as_json: Json = False,
) -> None:
    """Compare what is published with the recorded digests, and tell who signed REF.

    The exit code is 1 if a file is bad, or if REF has not passed its [image.verify].
    """
    from syncd.cli import oneshot
    from syncd.cli.daemon import LONG, running_daemon
    from syncd.cli.signature_text import examined_lines
    from syncd.oci import Reference
    from syncd.sync import examined_json, verified_json, verify_all

    wanted = Reference.typed(ref) if ref is not None else None
    config = load_config(chosen.path)
    found: Sequence[VerifiedView]
    images: Sequence[ExaminedView]
    if daemon := running_daemon(config):
        body = {} if wanted is None else {"ref": str(wanted)}
        told = daemon.post("verify", body, LONG)
        found, images = told["verified"], told["images"]
    else:
        proven, examined = oneshot.run(
            config,
            lambda services: verify_all(config, services.engine, services.verifier, wanted),
            quiet=True,
        )
        found, images = [*map(verified_json, proven)], [*map(examined_json, examined)]
    if as_json:
        print_json(found if wanted is None else {"files": found, "images": images})
    for one in () if as_json else found:
        console.say(f"{one['state']:<11}{' '.join(one['volumes'])} (by {one['compared']})")
        if one["detail"]:
            console.say(f"           {one['detail']}")
    for image in () if as_json else images:
        for line in examined_lines(image):
            console.say(line)
    bad = any(one["state"] != "ok" for one in found)
    if bad or any(image["trusted"] is False for image in images):
        raise typer.Exit(1)
