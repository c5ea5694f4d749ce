"""The commands about containers: `create` and `containers`.

Only what is typed is part of a request, so that a profile counts for everything else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from syncd.cli import console
from syncd.cli.app import Json, chosen, print_json, warn
from syncd.cli.status_text import short
from syncd.config import Config, load_config
from syncd.errors import RequestError

if TYPE_CHECKING:
    from syncd.sync import ContainerView, ListedContainerView
    from syncd.targets import ContainerRequest

_NUMBERED = re.compile(r"--(net|mp)([0-9]+)(?:=(.*))?", re.DOTALL)


class NumberedOptions(TyperCommand):
    """A command with options --net0, --net1, ... and --mp0, --mp1, ...

    `--net1 LINE` is read as `--netN 1=LINE`: an option that may be given several times.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments of the command."""
        rest: list[str] = super().parse_args(ctx, [*_renamed(args)])
        return rest


def create(
    ref: str,
    hostname: Annotated[str, typer.Option()],
    profile: Annotated[
        str | None, typer.Option(help="A configured profile, which completes this.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Else the one with most free memory.")] = None,
    vmid: Annotated[int | None, typer.Option(help="Else the next free one.")] = None,
    cores: Annotated[int | None, typer.Option(help="Else 1.")] = None,
    cpulimit: Annotated[float | None, typer.Option(help="CPUs' time a second.")] = None,
    memory: Annotated[int | None, typer.Option(help="MiB; else 512.")] = None,
    swap: Annotated[int | None, typer.Option(help="MiB.")] = None,
    storage: Annotated[str | None, typer.Option(help="Of the root file system.")] = None,
    size: Annotated[int | None, typer.Option(help="GiB of the root file system; else 8.")] = None,
    mounts: Annotated[
        list[str] | None,
        typer.Option("--mpN", metavar="LINE", help="--mp0 STORAGE:GIB,mp=/PATH to --mp255."),
    ] = None,
    bridge: Annotated[str | None, typer.Option(help="Of eth0, which asks DHCP.")] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--netN", metavar="LINE", help="--net0 name=eth0,... in place of --bridge, to --net31."
        ),
    ] = None,
    nameserver: Annotated[str | None, typer.Option()] = None,
    searchdomain: Annotated[str | None, typer.Option()] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Added to the image's.")
    ] = None,
    entrypoint: Annotated[str | None, typer.Option(help="In place of the image's.")] = None,
    ostype: Annotated[str | None, typer.Option(help="Else what Proxmox VE recognises.")] = None,
    cmode: Annotated[str | None, typer.Option(help="shell, console or tty.")] = None,
    features: Annotated[str | None, typer.Option(help="Such as nesting=1.")] = None,
    onboot: Annotated[bool | None, typer.Option("--onboot/--no-onboot")] = None,
    startup: Annotated[str | None, typer.Option(help="Such as order=1,up=30.")] = None,
    protection: Annotated[bool | None, typer.Option("--protection/--no-protection")] = None,
    timezone: Annotated[str | None, typer.Option(help="host, or one like Europe/Berlin.")] = None,
    hookscript: Annotated[str | None, typer.Option(help="For root@pam only.")] = None,
    description: Annotated[str | None, typer.Option(help="Notes in Markdown.")] = None,
    tags: Annotated[str | None, typer.Option(help="Parted by ; or commas.")] = None,
    ssh_key: Annotated[
        list[typer.FileText] | None,
        typer.Option(encoding="ascii", errors="replace", help="A file of public keys."),
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read root's password from standard input.")
    ] = False,
    pool: Annotated[str | None, typer.Option()] = None,
    unprivileged: Annotated[bool | None, typer.Option("--unprivileged/--privileged")] = None,
    start: Annotated[bool | None, typer.Option("--start/--no-start")] = None,
    target: Annotated[str | None, typer.Option(help="Where the image goes to several.")] = None,
    as_json: Json = False,
) -> None:
    """Make a container from an image, fetching that first if it is not cached."""
    from syncd.cli.daemon import LONG, left_to_daemon, running_daemon
    from syncd.targets import ContainerRequest, public_keys

    options = {
        "ref": ref, "hostname": hostname, "profile": profile, "node": node, "vmid": vmid,
        "cores": cores, "cpulimit": cpulimit, "memory": memory, "swap": swap, "storage": storage,
        "size": size, "bridge": bridge, "nameserver": nameserver, "searchdomain": searchdomain,
        "entrypoint": entrypoint, "ostype": ostype, "cmode": cmode, "features": features,
        "onboot": onboot, "startup": startup, "protection": protection, "timezone": timezone,
        "hookscript": hookscript, "description": description, "pool": pool,
        "unprivileged": unprivileged, "start": start, "target": target,
        "env": _pairs(env, "--env") if env else None,
        "tags": tags.replace(",", ";").split(";") if tags else None,
        "ssh_keys": [key for file in ssh_key for key in public_keys(file.read())]
        if ssh_key else None,
        "password": _password() if password_stdin else None,
        **{f"net{number}": line for number, line in _pairs(networks, "--netN").items()},
        **{f"mp{number}": line for number, line in _pairs(mounts, "--mpN").items()},
    }  # fmt: skip
    typed = {key: value for key, value in options.items() if value is not None}
    order = ContainerRequest.parse(typed)
    config = load_config(chosen.path)
    made: ContainerView
    if daemon := running_daemon(config):
        with left_to_daemon("this container: syncd containers lists it once it is there"):
            made = daemon.post("containers", typed, LONG)
    else:
        made = _created(config, order, quiet=as_json)
    tell_made(made, as_json=as_json)


def tell_made(made: ContainerView, *, as_json: bool) -> None:
    """Tell where a new container is, and what is to be known of it."""
    if as_json:
        print_json(made)
    else:
        console.say(f"{made['vmid']} {made['node']} {made['volume']}")
    warn(made["warnings"])


def _created(config: Config, order: ContainerRequest, *, quiet: bool) -> ContainerView:
    """Make the container in this process."""
    from syncd.cli import oneshot
    from syncd.sync import Cause, container_json

    made = oneshot.run(
        config, lambda services: services.containers.create(order, Cause.CLI), quiet=quiet
    )
    return container_json(made)


def containers(
    every: Annotated[
        bool, typer.Option("--all", help="Look at every container, whoever made it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what was made from which image, and what is behind its tag."""
    from syncd.cli import oneshot
    from syncd.cli.daemon import LONG, running_daemon
    from syncd.sync import listed_json

    config = load_config(chosen.path)
    found: Sequence[ListedContainerView]
    if daemon := running_daemon(config):
        found = daemon.get("containers", LONG, all=int(every))["containers"]
    else:
        listed = oneshot.run(
            config, lambda services: services.containers.listed(every=every), quiet=True
        )
        found = [*map(listed_json, listed)]
    if as_json:
        print_json({"containers": found})
    else:
        for one in found:
            console.say(_line(one))
    warn(
        f"container {one['vmid']} in {one['target']}: {one['fault']}"
        for one in found
        if one["fault"]
    )


def _line(listed: ListedContainerView) -> str:
    """Return what `syncd containers` says of one container."""
    state = "running" if listed["running"] else "stopped"
    where = f"{listed['vmid']} {listed['node']} {listed['hostname']} {state}"
    if not (listed["image"] and listed["digest"]):
        return f"{where} unknown"
    line = f"{where} {listed['image']} {short(listed['digest'])}"
    if listed["behind"] and listed["current"]:
        line += f" behind {short(listed['current'])}"
    return line


def _renamed(args: Iterable[str]) -> Iterator[str]:
    """Yield arguments in which each numbered option is one that may be given several times."""
    rest = iter(args)
    for argument in rest:
        found = _NUMBERED.fullmatch(argument)
        if found is None:
            yield argument
            continue
        kind, number, line = found.groups()
        yield f"--{kind}N"
        line = next(rest, None) if line is None else line
        if line is not None:
            yield f"{number}={line}"


def _pairs(entries: Iterable[str] | None, option: str) -> dict[str, str]:
    """Return entries NAME=VALUE by name; raise RequestError for one without =."""
    pairs = {}
    for entry in entries or ():
        name, equals, value = entry.partition("=")
        if not equals:
            raise RequestError(f"{option} {entry!r:.80} has no =", f"write {option} NAME=VALUE")
        pairs[name] = value
    return pairs


def _password() -> str:
    """Return the first line of standard input; on a terminal, ask for it without an echo."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("password: ")
    return sys.stdin.readline().rstrip("\r\n")
