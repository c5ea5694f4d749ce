"""The commands about images: `sync`, `convert`, `resolve`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli import console
from syncd.cli.app import DryRun, Json, Refs, chosen, print_json, warn
from syncd.config import Config, load_config
from syncd.errors import NotCachedError, RequestError
from syncd.formats import Format
from syncd.oci import Reference
from syncd.progress import Silence

if TYPE_CHECKING:
    from syncd.cli.daemon import Daemon
    from syncd.service import Services
    from syncd.sync import EndView

    Ends = list[tuple[EndView, Sequence[str]]]

STANDARD_OUTPUT = Path("-")
_BROUGHT = frozenset({"published", "unchanged", "would be published"})
"""The outcomes of a sync that did what it was asked for."""


def sync(refs: Refs = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Bring references up to date now."""
    from syncd.cli.daemon import running_daemon

    wanted = [Reference.typed(ref) for ref in refs or []]
    config = load_config(chosen.path)
    if daemon := running_daemon(config):
        ends = _by_daemon(daemon, wanted, dry_run=dry_run, quiet=as_json)
    else:
        ends = _here(config, wanted, dry_run=dry_run, quiet=as_json or dry_run)
    if as_json:
        print_json([end for end, _ in ends])
    else:
        for end, warnings in ends:
            _tell(end)
            warn(warnings)
    if any(end["outcome"] not in _BROUGHT for end, _ in ends):
        raise typer.Exit(1)


def _here(config: Config, wanted: list[Reference], *, dry_run: bool, quiet: bool) -> Ends:
    """Sync in this process; return how each reference ended, and its warnings."""
    from syncd.cli import oneshot
    from syncd.convert import share_one_heap
    from syncd.sync import end_json

    share_one_heap()
    ends = oneshot.run(
        config,
        lambda services: oneshot.sync(services, wanted, dry_run=dry_run),
        quiet=quiet,
    )
    return [
        (end_json(reference, outcome), outcome.warnings if outcome else ())
        for reference, outcome in ends
    ]


def _by_daemon(daemon: Daemon, wanted: list[Reference], *, dry_run: bool, quiet: bool) -> Ends:
    """Have the daemon sync; return the same as `_here`."""
    from syncd.cli.daemon import LONG, left_to_daemon
    from syncd.sync import Result

    body: dict[str, object] = {"each": True, "dry_run": dry_run}
    if wanted:
        body["refs"] = [*map(str, wanted)]
    if dry_run:
        return [(end, ()) for end in daemon.post("sync", body, LONG)["ends"]]
    with left_to_daemon("this: syncd jobs shows how far it is"):
        told = daemon.post("sync", body, LONG)
        with console.progress(quiet=quiet) as progress:
            jobs = [daemon.finished(job, progress) for job in told["jobs"]]
    ends: Ends = [
        (
            {
                "reference": job["reference"],
                "outcome": job["outcome"] or Result.INTERRUPTED,
                "message": job["message"],
                "volumes": job["volumes"],
            },
            job["warnings"],
        )
        for job in jobs
    ]
    return [*ends, *((end, ()) for end in told["failed"])]


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A registry reference, oci:DIR[:TAG], oci-archive:FILE[:TAG], "
            "docker-archive:FILE[:NAME] or dir:DIR."
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="The file to write, *.tar.zst or *.tar; - is standard output.")
    ],
    form: Annotated[
        Format | None, typer.Option("--format", help="Else as OUTPUT ends: .tar is oci.")
    ] = None,
    platform: Annotated[str, typer.Option(metavar="OS/ARCH")] = "linux/amd64",
    level: Annotated[int, typer.Option(min=1, max=19, help="zstd's compression level.")] = 3,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TEMPLATE",
            help="A .tar.zst that syncd made of an earlier version: what is the same is copied.",
        ),
    ] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Speak HTTP to the registry.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn an image into a template file."""
    from syncd.convert import Options, ScratchSpace, share_one_heap, write_tables
    from syncd.convert import convert as write_template
    from syncd.oci import RegistryAccess, open_image

    share_one_heap()
    config = load_config(chosen.path)
    form = _format(output, form)

    def access(host: str) -> RegistryAccess:
        settings = config.registry_for(host)
        return settings.model_copy(update={"plain_http": True}) if plain_http else settings

    with (
        _written_to(output, as_json=as_json) as file,
        tempfile.TemporaryDirectory() as tables,
        console.progress(quiet=as_json) as progress,
    ):
        opened = open_image(source, platform, access=access, limits=config.limits.bounds())
        options = Options(
            ScratchSpace(file.absolute().parent),
            format=form,
            level=level,
            limits=config.limits.bounds(),
            progress=progress or Silence(),
            earlier=write_tables(earlier, level, Path(tables)) if earlier else None,
        )
        written = write_template(opened, file, options)
    result = {
        "output": str(output),
        "format": form,
        "size": written.size,
        "digest": str(written.digest),
        "manifest_digest": str(opened.image.manifest_digest),
        "config_digest": str(opened.image.config_digest),
    }
    if as_json:
        print_json(result)
    else:
        tell = console.complain if output == STANDARD_OUTPUT else console.say
        tell(f"{output} {written.size / 1e6:.1f} MB {written.digest}")
    warn(written.warnings)


def resolve(
    ref: str,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch it if it is not cached.")] = False,
    node: Annotated[
        str | None, typer.Option(help="Of several platforms, the one that runs on this node.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the volume id of a reference, as its tag is now."""
    from syncd.cli.daemon import LONG, left_to_daemon, running_daemon

    reference = Reference.typed(ref).with_default_tag()
    config = load_config(chosen.path)
    if daemon := running_daemon(config):
        with left_to_daemon("this: syncd jobs shows how far it is") if pull else nullcontext():
            asked: dict[str, str | int] = {"ref": ref, "pull": int(pull)}
            asked |= {"node": node} if node else {}
            volumes = daemon.get("resolve", LONG, **asked)["volumes"]
    else:
        volumes = _resolved(config, reference, node, pull=pull, quiet=as_json)
    if as_json:
        print_json({"reference": str(reference), "volumes": volumes})
    else:
        for volume in volumes:
            console.say(volume)


def _resolved(
    config: Config, reference: Reference, node: str | None, *, pull: bool, quiet: bool
) -> tuple[str, ...]:
    """Resolve a reference in this process; raise NotCachedError where nothing is cached."""
    from syncd.cli import oneshot
    from syncd.sync import Cause, Use

    async def find(services: Services) -> tuple[str, ...]:
        if pull:
            return await services.containers.ensure(reference, Cause.CLI, use=Use(node))
        return (await services.engine.find(reference, use=Use(node))).volumes

    volumes = oneshot.run(config, find, quiet=quiet)
    if not volumes:
        raise NotCachedError(reference)
    return volumes


def _tell(end: EndView) -> None:
    reference, outcome = end["reference"], end["outcome"]
    if outcome == "would be published":
        console.say(f"{reference}: {outcome}")
    elif outcome not in _BROUGHT:
        console.complain(f"{reference}: {outcome}: {end['message'] or 'see syncd jobs'}")
    else:
        console.say(f"{reference}: {outcome}: {' '.join(end['volumes']) or end['message']}")


def _format(output: Path, wanted: Format | None) -> Format:
    """Return the template's format: Proxmox VE tells the formats apart by how the name ends."""
    by_name = next((form for form in Format if output.name.endswith(form.suffix)), None)
    if wanted and by_name and wanted != by_name:
        raise RequestError(
            f"{output} ends as the format {by_name} does, and the format {wanted} is asked for: "
            "Proxmox VE could not read the file",
            f"end its name in {wanted.suffix}",
        )
    form = wanted or by_name or (Format.ROOTFS if output == STANDARD_OUTPUT else None)
    if form:
        return form
    raise RequestError(
        f"{output} does not tell its format",
        "end its name in .tar.zst (rootfs) or .tar (oci), or give --format",
    )


@contextmanager
def _written_to(output: Path, *, as_json: bool) -> Iterator[Path]:
    """Give the file to write; for standard output, a file that is copied there in the end."""
    if output != STANDARD_OUTPUT:
        yield output
        return
    if as_json or sys.stdout.isatty():
        raise RequestError(
            "standard output cannot take the template: "
            + ("--json is printed there" if as_json else "it is a terminal"),
            "name a file, or direct standard output elsewhere",
        )
    with tempfile.TemporaryDirectory(prefix="syncd-") as folder:
        file = Path(folder) / "template"
        yield file
        with file.open("rb") as template, console.printing():
            shutil.copyfileobj(template, sys.stdout.buffer)
            sys.stdout.buffer.flush()
