"""What `syncd check` finds out about notifications: the URLs, and what was not delivered.

Nobody is told anything: `syncd notify --test` does that.  No URL is shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from syncd.config import Config
from syncd.errors import ConfigError
from syncd.report import receivers_of
from syncd.sync import Ledger
from syncd.targets import CheckResult

_TRY = "syncd notify --test tells it something"
# The check is typed in a shell; a credential is given to the service alone.
_NOBODY = "nobody is told, unless systemd gives the service its credential notify-urls"


def notification_results(config: Config) -> Iterator[CheckResult]:
    """Look at the URL of each receiver and of the dead man's switch, and at what waits."""
    settings = config.notify
    try:
        receivers = receivers_of(settings.urls())
    except ConfigError as exc:
        receivers = []
        yield CheckResult(False, "notifications", str(exc))
    else:
        if not receivers:
            yield CheckResult(True, "notifications", _NOBODY)
    for receiver in receivers:
        fault, name = receiver.fault(), receiver.name()
        detail = fault.removeprefix(f"{name} ") if fault else _TRY
        yield CheckResult(fault is None, f"notification {name}", detail)
    yield from _switch(config)
    yield from _waiting(config)


def _switch(config: Config) -> Iterator[CheckResult]:
    """Look at the URL of the dead man's switch, and whether there are sweeps to ask it."""
    subject = "dead man's switch"
    try:
        if config.notify.ping_url() is None:
            return
    except ConfigError as exc:
        yield CheckResult(False, subject, str(exc))
        return
    if config.schedule.sweep is None:
        yield CheckResult(False, subject, "never pinged, since schedule.sweep is off")
    else:
        yield CheckResult(True, subject, "pinged after each sweep that works")


def _waiting(config: Config) -> Iterator[CheckResult]:
    """Look for notifications that were tried and are not delivered."""
    if not config.state.paths.ledger.exists():
        return
    with Ledger(config.state.paths.ledger) as ledger:
        tried = [row for row in ledger.notifications.undelivered() if row.tries]
    if tried:
        since = f"{tried[0].made.astimezone():%Y-%m-%d %H:%M %Z}"
        detail = f"{len(tried)} not delivered since {since}: {tried[0].fault}"
        yield CheckResult(False, "notifications", detail)
