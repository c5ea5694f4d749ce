"""What `syncd check` finds out about GitHub's webhook: whether it gets here, what was missed.

GitHub is asked, and asked for nothing again: the daemon does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from syncd.config import Config
from syncd.errors import SyncdError
from syncd.oci import GITHUBS_REGISTRY
from syncd.service.clock import HostClock
from syncd.targets import CheckResult

if TYPE_CHECKING:
    from syncd.service.missed_deliveries import Missed

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
