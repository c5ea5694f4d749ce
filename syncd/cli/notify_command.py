"""The command `notify`: what waits to be told; and a message to everybody, to see that it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli import console
from syncd.cli.app import Json, chosen, print_json, print_results
from syncd.cli.status_text import local_time
from syncd.config import NotifySettings, load_config
from syncd.errors import SyncdError

if TYPE_CHECKING:
    from syncd.sync import Undelivered
    from syncd.targets import CheckResult


def notify(
    test: Annotated[
        bool, typer.Option("--test", help="Tell every receiver something, and ping the switch.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which notifications wait; with --test, tell every receiver something now."""
    from syncd.sync import Ledger

    config = load_config(chosen.path)
    if test:
        print_results(list(tested(config.notify)), as_json=as_json)
        return
    with Ledger(config.state.paths.ledger) as ledger:
        waiting = ledger.notifications.undelivered()
    if as_json:
        print_json([*map(_json, waiting)])
        return
    for row in waiting:
        console.say(f"{local_time(row.made)} {row.notification.title}")
        if row.fault:
            times = "once" if row.tries == 1 else f"{row.tries} times"
            console.say(f"  tried {times}: {row.fault}")
    if not waiting:
        console.say("no notification waits")


def tested(settings: NotifySettings) -> Iterator[CheckResult]:
    """Tell every receiver that this is a test, and ping the dead man's switch; yield how it went.

    Raise ConfigError when the URLs cannot be read, SyncdError when there are none.
    """
    import asyncio
    import socket

    from syncd.report import ping, receivers_of
    from syncd.sync import Notification, Severity
    from syncd.targets import CheckResult

    receivers, switch = receivers_of(settings.urls()), settings.ping_url()
    if not receivers and switch is None:
        raise SyncdError(
            "there is nobody to tell",
            "name notify.urls_file; a credential notify-urls is given to the service alone",
        )
    test = Notification(
        f"syncd on {socket.gethostname()}: this is a test",
        "Somebody ran `syncd notify --test`. Nothing is wrong.",
        Severity.INFO,
    )
    for receiver in receivers:
        fault, name = receiver.tell(test), receiver.name()
        detail = fault.removeprefix(f"{name} ") if fault else "took the message"
        yield CheckResult(fault is None, name, detail)
    if switch is not None:
        fault = asyncio.run(ping(switch))
        yield CheckResult(fault is None, "dead man's switch", fault or "answered")


def _json(row: Undelivered) -> dict[str, object]:
    return {
        "title": row.notification.title,
        "body": row.notification.body,
        "made": row.made.isoformat(),
        "tries": row.tries,
        "next_try": row.next_try.isoformat(),
        "fault": row.fault or None,
    }
