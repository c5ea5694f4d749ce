"""The command line.  Exit codes: 0 done, 1 failed, 2 usage or configuration."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncd import __version__, console
from syncd.config import load, locate
from syncd.errors import SyncdError
from syncd.job import Cause, Outcome, Result, Silence
from syncd.reference import Reference
from syncd.template import Format

if TYPE_CHECKING:
    from syncd.parts import Parts
    from syncd.sync import Found

app = typer.Typer(
    name="syncd",
    help="Keeps Proxmox VE's template storage in step with a container registry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Refs = Annotated[
    list[str] | None, typer.Argument(metavar="[REF]...", help="Without any: everything watched.")
]


@dataclass(slots=True)
class _Chosen:
    """What the options before the command chose."""

    path: Path | None = None


chosen = _Chosen()


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
            help="The configuration; else $SYNCD_CONFIG, /etc/syncd/syncd.toml, or the default.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - typer calls its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    chosen.path = locate(config)


@app.command()
def run(
    log: Annotated[str, typer.Option(help="console, json, or auto: JSON under systemd.")] = "auto",
) -> None:
    """Run the daemon: webhooks, schedule, API and signals."""
    import asyncio

    from syncd import daemon

    console.set_up_logs(log)
    asyncio.run(daemon.run(chosen.path))


@app.command()
def sync(refs: Refs = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Bring references up to date now."""
    from syncd import oneshot

    results = oneshot.run(
        load(chosen.path),
        lambda parts: oneshot.sync(parts, refs or [], dry_run=dry_run),
        quiet=as_json or dry_run,
    )
    if as_json:
        _print_json(
            [
                {
                    "reference": str(reference),
                    "outcome": outcome.result if outcome else "would be published",
                    "message": outcome.message if outcome else None,
                    "volumes": outcome.volumes if outcome else (),
                }
                for reference, outcome in results
            ]
        )
    else:
        for reference, outcome in results:
            _tell(reference, outcome)
    if any(outcome and outcome.result is Result.FAILED for _, outcome in results):
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="A registry reference, oci:DIR[:TAG] or oci-archive:FILE[:TAG].")
    ],
    output: Annotated[Path, typer.Argument(help="The template file to write.")],
    form: Annotated[Format, typer.Option("--format")] = Format.ROOTFS,
    platform: Annotated[str, typer.Option(metavar="OS/ARCH")] = "linux/amd64",
    level: Annotated[int, typer.Option(min=1, max=19, help="zstd's compression level.")] = 3,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Speak HTTP to the registry.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn an image into a template file."""
    from syncd import convert as conversion
    from syncd import source as origins
    from syncd.manifest import read_image
    from syncd.reference import Platform
    from syncd.spool import Spool

    config = load(chosen.path)
    wanted = Platform.parse(platform)
    origin, top = origins.named(source, config, plain_http=plain_http)
    with console.progress(quiet=as_json) as progress:
        image = read_image(origin, top, wanted)
        written = conversion.convert(
            image,
            origins.verified(origin),
            output,
            form=form,
            level=level,
            limits=config.limits.bounds(),
            spool=Spool(output.absolute().parent),
            progress=progress or Silence(),
        )
    result = {
        "output": str(output),
        "format": form,
        "size": written.size,
        "digest": str(written.digest),
        "manifest_digest": str(image.manifest_digest),
        "config_digest": str(image.config_digest),
    }
    if as_json:
        _print_json(result)
    else:
        console.say(f"{output} {written.size / 1e6:.1f} MB {written.digest}")


@app.command()
def resolve(
    ref: str,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch it if it is not cached.")] = False,
    as_json: Json = False,
) -> None:
    """Print the volume id of a reference, as its tag is now."""
    from syncd import oneshot

    reference = Reference.parse(ref).with_default_tag()

    def find(parts: Parts) -> Coroutine[Any, Any, Found]:
        if pull:
            return parts.launch.ensure(reference, Cause.CLI)
        return parts.sync.find(reference)

    found = oneshot.run(load(chosen.path), find, quiet=as_json)
    if not found.volumes:
        raise SyncdError(f"{reference} is not cached as it is now", "fetch it with --pull")
    if as_json:
        _print_json({"reference": str(reference), "volumes": found.volumes})
    else:
        for volume in found.volumes:
            console.say(volume)


@app.command()
def create(
    ref: str,
    hostname: Annotated[str, typer.Option()],
    node: Annotated[str | None, typer.Option(help="Else the one with most free memory.")] = None,
    vmid: Annotated[int | None, typer.Option(help="Else the next free one.")] = None,
    cores: Annotated[int, typer.Option()] = 1,
    memory: Annotated[int, typer.Option(help="MiB.")] = 512,
    swap: Annotated[int | None, typer.Option(help="MiB.")] = None,
    storage: Annotated[str | None, typer.Option(help="Of the root file system.")] = None,
    size: Annotated[int, typer.Option(help="GiB of the root file system.")] = 8,
    bridge: Annotated[str | None, typer.Option(help="Of eth0, which asks DHCP.")] = None,
    net0: Annotated[str | None, typer.Option(help="The whole line, in place of --bridge.")] = None,
    tags: Annotated[str, typer.Option(help="Parted by ; or commas.")] = "",
    ssh_key: Annotated[
        list[typer.FileText] | None,
        typer.Option(encoding="ascii", errors="replace", help="A file of public keys."),
    ] = None,
    features: Annotated[str | None, typer.Option(help="Such as nesting=1.")] = None,
    pool: Annotated[str | None, typer.Option()] = None,
    unprivileged: Annotated[bool, typer.Option("--unprivileged/--privileged")] = True,
    start: Annotated[bool, typer.Option("--start/--no-start")] = False,
    target: Annotated[str | None, typer.Option(help="Where the image goes to several.")] = None,
    as_json: Json = False,
) -> None:
    """Make a container from an image, fetching that first if it is not cached."""
    from syncd import oneshot
    from syncd.api import container_json
    from syncd.container import Order, public_keys

    options = {
        "ref": ref, "hostname": hostname, "node": node, "vmid": vmid, "cores": cores,
        "memory": memory, "swap": swap, "storage": storage, "size": size, "bridge": bridge,
        "net0": net0, "features": features, "pool": pool, "unprivileged": unprivileged,
        "start": start, "target": target, "tags": tags.replace(",", ";").split(";") if tags else (),
        "ssh_keys": [key for file in ssh_key or () for key in public_keys(file.read())],
    }  # fmt: skip
    order = Order.parse(options)
    made = oneshot.run(
        load(chosen.path), lambda parts: parts.launch.create(order, Cause.CLI), quiet=as_json
    )
    if as_json:
        _print_json(container_json(made))
    else:
        console.say(f"{made.vmid} {made.node} {made.volume}")
    for warning in made.warnings:
        console.complain(f"warning: {warning}")


@app.command()
def status(as_json: Json = False) -> None:
    """Show what is cached, and the newest jobs."""
    from syncd.api import job_json, template_json
    from syncd.ledger import Ledger

    config = load(chosen.path)
    with Ledger(config.state.directory / "ledger.sqlite") as ledger:
        templates, jobs = ledger.templates(), ledger.jobs(20)
    if as_json:
        _print_json({"templates": [*map(template_json, templates)], "jobs": [*map(job_json, jobs)]})
    else:
        console.show(console.templates_table(templates), console.jobs_table(jobs))


@app.command()
def pin(volume: str) -> None:
    """Keep a template for ever, whatever retention says."""
    _pin(volume, pinned=True)


@app.command()
def unpin(volume: str) -> None:
    """Let retention judge a template again."""
    _pin(volume, pinned=False)


def _pin(volume: str, *, pinned: bool) -> None:
    from syncd.ledger import Ledger

    with Ledger(load(chosen.path).state.directory / "ledger.sqlite") as ledger:
        if not ledger.pin(volume, pinned=pinned):
            raise SyncdError(f"syncd published no volume {volume}", "syncd status names them")


@app.command()
def prune(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Delete the versions that retention lets go."""
    from syncd import oneshot

    gone = oneshot.run(
        load(chosen.path), lambda parts: oneshot.prune(parts, dry_run=dry_run), quiet=True
    )
    if as_json:
        _print_json([{"target": one.target, "volumes": one.volumes} for one in gone])
    else:
        verb = "would delete" if dry_run else "deleted"
        for one in gone:
            console.say(f"{verb} {' '.join(one.volumes)}")


@app.command()
def check(as_json: Json = False) -> None:
    """Check configuration, secrets, access to the registries, and targets."""
    from syncd.checks import findings

    found = findings(load(chosen.path))
    if as_json:
        _print_json([{"ok": f.ok, "subject": f.subject, "detail": f.detail} for f in found])
    else:
        for one in found:
            mark = typer.style("ok  ", fg="green") if one.ok else typer.style("FAIL", fg="red")
            console.say(f"{mark} {one.subject}: {one.detail}")
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def _tell(reference: Reference, outcome: Outcome | None) -> None:
    if outcome is None:
        console.say(f"{reference}: would be published")
    elif outcome.result is Result.FAILED:
        console.complain(f"{reference}: failed: {outcome.message}")
    else:
        console.say(f"{reference}: {outcome.result}: {' '.join(outcome.volumes)}")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
