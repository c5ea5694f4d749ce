"""The command `init`: from the package to the first template.

Everything is asked or given by options first; only then is anything written or started.  So an
interruption at a question leaves nothing behind.  The configuration stands in one file that the
next person can read, each secret in a file of its own beside it.
"""

from __future__ import annotations

import re
import shlex
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from syncd.cli import console
from syncd.cli.app import chosen
from syncd.cli.check_command import check
from syncd.cli.questions import Questions, read_secret
from syncd.config import DEFAULT_PATH

_EVENTS = "Packages, Registry packages, Workflow runs"


def init(
    *,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="REF", help="To watch: REPOSITORY:TAG or REPOSITORY:re:PATTERN."),
    ] = None,
    login: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST=USER:FILE", help="A registry's login; FILE has the password."),
    ] = None,
    plain_http: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A registry that speaks HTTP.")
    ] = None,
    directory: Annotated[
        str | None, typer.Option(metavar="DIR", help="Publish into a folder of this host.")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Publish into a cluster: one of its nodes."),
    ] = None,
    storage: Annotated[str | None, typer.Option(help="The storage of templates.")] = None,
    token_id: Annotated[str | None, typer.Option(help="Else syncd@pve!sync.")] = None,
    token_secret_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the token's secret is now.")
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The CA of the cluster, or public.")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="Or the SHA-256 of the nodes' certificate.")
    ] = None,
    delete: Annotated[
        bool | None, typer.Option("--delete/--no-delete", help="May old versions be deleted?")
    ] = None,
    rootfs_storage: Annotated[
        str | None, typer.Option(help="Make containers, too, with their roots there.")
    ] = None,
    bridge: Annotated[str | None, typer.Option(help="Of containers; else vmbr0.")] = None,
    pool: Annotated[str | None, typer.Option(help="Of containers; else none.")] = None,
    grant: Annotated[
        bool | None, typer.Option("--grant/--no-grant", help="Run the pveum commands here?")
    ] = None,
    public_name: Annotated[
        str | None, typer.Option(metavar="HOST", help="By which GitHub reaches this host.")
    ] = None,
    start: Annotated[
        bool | None, typer.Option("--start/--no-start", help="Start the service with it?")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a configuration that somebody wrote.")
    ] = False,
    check_it: Annotated[
        bool, typer.Option("--check/--no-check", help="Check it at the end.")
    ] = True,
) -> None:
    """Write a first configuration, with its secrets; ask for what no option says."""
    from syncd.cli.first_cluster import ask_target
    from syncd.cli.first_configuration import FirstConfiguration
    from syncd.cli.first_files import require_replaceable
    from syncd.cli.first_images import ask_images, ask_logins
    from syncd.cli.first_target import TargetOptions
    from syncd.cli.first_token import token_secret
    from syncd.cli.service_unit import ServiceUnit
    from syncd.config import parse_config

    path = (chosen.path or DEFAULT_PATH).absolute()
    require_replaceable(path, force=force)
    unit = ServiceUnit()
    obstacle = unit.obstacle(path)
    if start and obstacle:
        raise typer.BadParameter(f"cannot be: {obstacle}", param_hint="--start")
    questions = Questions(asking=sys.stdin.isatty())
    options = TargetOptions(
        directory=directory,
        endpoints=tuple(endpoint or ()),
        token_id=token_id,
        token_secret_file=token_secret_file,
        trust=fingerprint or ca_file,
        storage=storage,
        delete=delete,
        rootfs_storage=rootfs_storage,
        bridge=bridge,
        pool=pool,
        grant=grant,
    )
    watched = ask_images(questions, image or ())
    logins = ask_logins(questions, watched, plain_http or (), _given_logins(login or ()))
    target = ask_target(questions, options)
    name = questions.answer(
        "The name by which GitHub reaches this host",
        "--public-name",
        _host,
        public_name,
        None if public_name else _own_name(),
    )
    serves = unit.reads(path)
    starts = not obstacle and questions.agree(
        "Start the service with it?", start, default=questions.asking
    )
    secret = token_secret(questions, options, target.commands) if target.commands else ""

    first = FirstConfiguration(path, tuple(watched), tuple(logins), target, secret)
    parse_config(first.text, path)
    written = [*first.write(), *(unit.complete(target.folder, first.secrets) if serves else ())]
    console.say("\nwritten: " + ", ".join(map(str, written)))
    _tell_webhook(name, first.webhook_secret)
    if target.commands and not secret:
        console.say(f"\nPut the token's secret into {first.token_file}, with mode 0600.")
        starts = False
    if starts:
        unit.start()
        console.say("\nThe service runs; `syncd status` shows what it has brought.")
    elif serves:
        console.say("\nThen: systemctl daemon-reload && systemctl restart syncd")
    else:
        console.say(f"\nThen: syncd --config {shlex.quote(str(path))} run")
    if check_it:
        console.say("")
        chosen.path = path
        check()


def _given_logins(options: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return username and password by host, of options like HOST=USER:FILE."""
    found = {}
    for option in options:
        match = re.fullmatch(r"([^=]+)=([^:]+):(.+)", option)
        if match is None:
            raise typer.BadParameter("is written HOST=USER:FILE", param_hint="--login")
        host, user, file = match.groups()
        found[host] = (user, read_secret(Path(file), "--login"))
    return found


def _own_name() -> str:
    full = socket.getfqdn()
    return full if "." in full else socket.gethostname()


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\]", text):
        raise ValueError(f"{text!r} is no name of a host: write it like syncd.example.org")
    return text


def _tell_webhook(host: str, secret: Path) -> None:
    """Tell what has to be entered at GitHub: the one secret that is ever shown."""
    console.say("\nAt GitHub, in the settings of the organisation or repository, add a webhook:")
    for key, value in (
        ("Payload URL", f"https://{host}/webhooks/github"),
        ("Content type", "application/json"),
        ("Secret", read_secret(secret, "--config")),
        ("Events", _EVENTS),
    ):
        console.say(f"    {key:<13} {value}")
    console.say("A proxy with TLS passes /webhooks/github, and nothing else, on to 127.0.0.1:8750.")
