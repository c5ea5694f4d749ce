"""The command `replace`: a newer image under containers that exist."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncd.cli import console
from syncd.cli.app import Json, chosen, print_json, warn
from syncd.cli.container_commands import tell_made
from syncd.config import load_config, parse_span
from syncd.errors import RequestError

if TYPE_CHECKING:
    from syncd.config import Config
    from syncd.service import Services
    from syncd.sync import ReplacedBehind, ReplacedView, Replacement, ReplaceOptions


def replace(
    vmid: Annotated[int | None, typer.Argument(min=100, help="The container.")] = None,
    ref: Annotated[
        str | None, typer.Argument(help="Else the tag that the container's description names.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the steps; do none.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish or undo what was broken off.")
    ] = False,
    behind: Annotated[
        str | None, typer.Option(help="Every container that runs an older image of this tag.")
    ] = None,
    one_at_a_time: Annotated[
        bool, typer.Option("--one-at-a-time", help="With --behind: stop at the first failure.")
    ] = False,
    wait_for: Annotated[
        str | None,
        typer.Option(help="running, address, http:PORT/PATH or command:PROGRAM ARGUMENTS."),
    ] = None,
    timeout: Annotated[int, typer.Option(help="Seconds to wait; then the old root returns.")] = 120,
    keep: Annotated[
        str | None, typer.Option(help="Remove the old root later: 30m, 12h, 1d. Else keep it.")
    ] = None,
    carry: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Carry this over from the old root; else SSH host keys. Takes root on the node.",
        ),
    ] = None,
    no_carry: Annotated[
        bool, typer.Option("--no-carry", help="Carry nothing over, not even SSH host keys.")
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Make a new container beside it instead.")
    ] = False,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Take a snapshot first; refused where none can be.")
    ] = False,
    target: Annotated[str | None, typer.Option(help="Where several clusters have it.")] = None,
    as_json: Json = False,
) -> None:
    """Put a newer image under a container; its volumes, address and configuration stay."""
    from syncd.cli import oneshot
    from syncd.cli.daemon import LONG, left_to_daemon, running_daemon
    from syncd.sync import BehindOptions, Cause, ReplaceOptions

    if [vmid is not None, resume, behind is not None].count(True) != 1:
        raise RequestError("nothing is to be replaced", "give a VMID, or --behind REF, or --resume")
    if (behind is not None) != one_at_a_time:
        raise RequestError("--behind and --one-at-a-time go together")
    if behind is not None and ref is not None:
        raise RequestError("--behind names the image itself")
    if side_by_side and vmid is None:
        raise RequestError("--side-by-side is for one container", "give its VMID")
    if resume and (dry_run or wait_for or keep or snapshot):
        raise RequestError("--resume ends what was begun, as it was asked for then")
    if carry and (no_carry or side_by_side or resume):
        raise RequestError("--carry goes neither with --no-carry, --side-by-side nor --resume")
    paths = tuple(carry) if carry else () if no_carry else None
    typed = {
        "ref": ref or behind,
        "target": target,
        "keep": None if keep is None else _seconds(keep),
        "timeout": timeout,
        "snapshot": snapshot,
        "dry_run": dry_run,
    }
    given = {key: value for key, value in typed.items() if value is not None}
    config = load_config(chosen.path)
    if resume:
        ended = oneshot.run(config, lambda services: services.roots.resume(), quiet=as_json)
        _tell_ended(ended, as_json=as_json)
    elif behind is not None:
        wanted = BehindOptions.parse(given)
        row = oneshot.run(
            config,
            lambda services: services.roots.replace_behind(
                wanted, Cause.CLI, wait_for=wait_for, carry=paths
            ),
            quiet=as_json,
        )
        _tell_row(row, as_json=as_json)
    elif vmid is not None:
        here = paths is not None or (wait_for or "").startswith("command:") or _mounts_roots()
        daemon = None if here else running_daemon(config)
        if daemon is not None:
            asked = given | {"side_by_side": side_by_side}
            asked |= {"wait_for": wait_for} if wait_for else {}
            with left_to_daemon(f"container {vmid}: syncd containers tells what it runs"):
                answer = daemon.post(f"containers/{vmid}/replace", asked, LONG)
        else:
            options = ReplaceOptions.parse(given)
            answer = _replaced(
                config, vmid, options, wait_for, paths, beside=side_by_side, quiet=as_json
            )
        (tell_made if side_by_side else _tell)(answer, as_json=as_json)


def _mounts_roots() -> bool:
    """Tell whether this process may carry files over, which the service may not."""
    return os.geteuid() == 0 and shutil.which("pct") is not None


def _replaced(
    config: Config,
    vmid: int,
    options: ReplaceOptions,
    wait_for: str | None,
    carry: tuple[str, ...] | None,
    *,
    beside: bool,
    quiet: bool,
) -> Any:
    """Replace a container, or make one beside it, in this process; return the answer's JSON."""
    from syncd.cli import oneshot
    from syncd.sync import Cause, container_json, replaced_json

    async def work(services: Services) -> Any:
        roots = services.roots
        if beside:
            made = await roots.side_by_side(vmid, options, Cause.CLI, wait_for=wait_for)
            return container_json(made)
        return replaced_json(
            await roots.replace(vmid, options, Cause.CLI, wait_for=wait_for, carry=carry)
        )

    return oneshot.run(config, work, quiet=quiet)


def _tell_ended(ended: list[Replacement], *, as_json: bool) -> None:
    """Tell how replacements that were broken off ended; exit with 1 where one has not."""
    from syncd.sync import ReplacementState, replacement_json

    if as_json:
        print_json([*map(replacement_json, ended)])
    else:
        for old in ended:
            swap, why = old.swap, f" ({old.reason})" if old.reason else ""
            if old.state is ReplacementState.REPLACED:
                why = f"; {_kept(swap.old_volume, swap.unused_key, swap.snapshot)}"
            console.say(f"{swap.vmid} {swap.node} {old.state}: {swap.image}{why}")
        if not ended:
            console.say("nothing was broken off")
    if any(old.is_open for old in ended):
        raise typer.Exit(1)


def _tell_row(row: ReplacedBehind, *, as_json: bool) -> None:
    """Tell what became of the containers behind a tag; raise what ended the row."""
    from syncd.sync import replaced_behind_json, replaced_json

    if as_json:
        print_json(replaced_behind_json(row))
    else:
        for done in row.replaced:
            _tell(replaced_json(done), as_json=False)
        if not row.replaced and row.error is None:
            console.say("no container is behind")
        for vmid in row.left:
            console.say(f"{vmid} not begun")
    if row.error is not None:
        raise row.error


def _tell(replaced: ReplacedView, *, as_json: bool) -> None:
    """Tell what was done to a container, or what would be."""
    from syncd.targets import SwapStep

    where = f"{replaced['vmid']} {replaced['node']} {replaced['image']}"
    if as_json:
        print_json(replaced)
        return
    if replaced["already"]:
        console.say(f"{where} already")
    elif replaced["done"]:
        kept = _kept(replaced["old_root"], replaced["kept_as"], replaced["snapshot"])
        console.say(f"{where}; {kept}")
    else:
        console.say(where)
        for number, step in enumerate(map(SwapStep, replaced["steps"]), start=1):
            console.say(f"{number}. {step}: {step.meaning}")
    warn(replaced["warnings"])


def _kept(root: str | None, key: str | None, snapshot: str | None) -> str:
    """Return where the old root is."""
    taken = f", and in the snapshot {snapshot}" if snapshot else ""
    return f"the old root {root} is kept as {key}{taken}"


def _seconds(text: str) -> int:
    """Return a span such as 12h in seconds; raise RequestError for anything else."""
    try:
        return int(parse_span(text).total_seconds())
    except ValueError as exc:
        raise RequestError(f"--keep {text!r:.40} is no time: {exc}") from exc
