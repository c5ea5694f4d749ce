"""What `syncd check` finds out about GitHub's webhook: whether it gets here, what was missed.

GitHub is asked, and asked for nothing again: the daemon does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from syncd.config import GITHUBS_NETWORKS, Config
from syncd.errors import SyncdError
from syncd.oci import GITHUBS_REGISTRY
from syncd.service.clock import HostClock
from syncd.service.hook_networks import learnt
from syncd.targets import CheckResult

if TYPE_CHECKING:
    from syncd.service.missed_deliveries import Missed

_OLD = timedelta(days=2)  # GitHub asks for regular looks at its networks
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_UNSEEN = (
    "a reverse proxy on this host hides who calls, so all that it hands on is refused: name its "
    "address in server.proxies, and have it set X-Forwarded-For"
)
_SUBJECT = "deliveries missed while down"
# The check is typed in a shell; a credential is given to the service alone.
_NOBODY = (
    "not asked for again, unless systemd gives the service its credential github-token; the sweep "
    "finds what was pushed"
)


def github_results(config: Config) -> Iterator[CheckResult]:
    """Look at the token, and at each webhook that leads here.  Call it outside of event loops."""
    try:
        token = config.github.token()
        if token is None:
            if any(image.reference.registry == GITHUBS_REGISTRY for image in config.image):
                yield CheckResult(True, _SUBJECT, _NOBODY)
            return
        found, faults = asyncio.run(_asked(config, token))
    except SyncdError as exc:
        yield CheckResult(False, _SUBJECT, str(exc))
        return
    for each in found:
        yield _of(each)
    for fault in faults:
        yield CheckResult(False, _SUBJECT, str(fault))


def address_results(config: Config, now: datetime) -> Iterator[CheckResult]:
    """Look at what `server.hook_addresses` lets in."""
    server, subject = config.server, "hook addresses"
    if not server.hook_addresses:
        return
    own = len([each for each in server.hook_addresses if each != GITHUBS_NETWORKS])
    allowed, ok = f"deliveries are taken from {own} networks of the configuration", True
    if own < len(server.hook_addresses):
        known = learnt(config)
        if known is None:
            allowed = f"{allowed}; GitHub's are not known yet, and its deliveries are answered 503"
        else:
            when = f"{known.at.astimezone():%Y-%m-%d %H:%M %Z}"
            allowed = f"{allowed}, and from {len(known.networks)} that GitHub named on {when}"
        ok = known is not None and now - known.at <= _OLD
    yield CheckResult(ok, subject, allowed)
    host = server.listen.rpartition(":")[0].strip("[]")
    if not server.proxies and host in _LOOPBACK:
        yield CheckResult(False, subject, _UNSEEN)


async def _asked(config: Config, token: str) -> tuple[list[Missed], list[SyncdError]]:
    from syncd.service.github_api import GitHubApi  # its library takes its time
    from syncd.service.missed_deliveries import missed_of

    async with GitHubApi.open(config.github, token) as api:
        found, faults = await missed_of(api, config, HostClock())
    return found, list(faults)


def _of(found: Missed) -> CheckResult:
    """Tell of one webhook; it is at fault as long as its newest delivery failed."""
    subject, newest = f"webhook {found.hook}", found.newest
    if newest is None:
        detail = f"leads to {found.host}, and had nothing to deliver in three days"
        return CheckResult(True, subject, detail)
    detail = f"leads to {found.host}; {len(found.attempts) or 'nothing'} missed in three days"
    if newest.ok:
        return CheckResult(True, subject, detail)
    at = f"{newest.at.astimezone():%Y-%m-%d %H:%M %Z}"
    return CheckResult(False, subject, f"{detail}; the newest delivery, at {at}: {newest.status}")
