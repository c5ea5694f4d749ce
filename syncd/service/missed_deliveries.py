"""The deliveries that GitHub failed to make while nobody took them, asked for again.

GitHub delivers once, and keeps what failed for three days.  With a token, its list is looked at
half a minute after the start, when a proxy before syncd is up, too, and then as often as the sweep.
Each delivery is asked for once: where that fails as well, the sweep has long seen what was pushed.
A GitHub that is at fault is told in the log, is given time, and keeps nobody waiting: this runs in
a task of its own, with one request at a time, and has part in no sweep and in no job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from syncd.config import Config
from syncd.errors import GitHubError, GitHubUnavailableError, SyncdError
from syncd.events import KEPT, Attempt, Hook, missed
from syncd.oci import GITHUBS_REGISTRY
from syncd.service.asking import Asking
from syncd.service.clock import Clock, HostClock
from syncd.service.github_api import GitHubApi
from syncd.service.services import Services
from syncd.sync import Counted, Ending, Ledger, Redelivery

log = structlog.stdlib.get_logger()

ASKED_MAX = 100
"""Deliveries that are asked for in one look; the next look goes on."""

_FIRST = 30.0  # seconds after the start
_EVERY = timedelta(hours=1)
_EVERY_LEAST = 60.0  # seconds between two looks
_PAUSE = 1.0  # seconds before each POST, as GitHub's best practices ask
_REFUSALS_MAX = 3  # in a row, until the rest is left to the next look
_PLACES_MAX = 20  # where webhooks are looked for
_HOOKS_MAX = 20  # whose deliveries are looked at


@dataclass(frozen=True, slots=True)
class Missed:
    """What was missed of one webhook: its place, where it leads, and the last attempt at each.

    `newest` is the newest attempt of all, or None where there was none.
    """

    hook: str
    host: str
    attempts: list[Attempt]
    newest: Attempt | None


class MissedDeliveries:
    """Keeps asking.  Lives in one event loop; `pause` waits for so many seconds."""

    def __init__(
        self,
        services: Services,
        clock: Clock | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._services = services
        self._clock = clock or HostClock()
        self._pause = pause
        self._asking = Asking(self._clock, _FIRST)
        self._known = services.live.config
        services.live.on_change(self._apply)

    async def keep(self) -> None:
        """Look when it is time, again and again until cancelled."""
        await self._asking.keep(self.look)

    async def look(self) -> float:
        """Ask for what was missed; return the seconds until the next look.  Never raises."""
        config, tally = self._services.live.config, self._services.ledger.tally
        every = max((config.schedule.sweep or _EVERY).total_seconds(), _EVERY_LEAST)
        try:
            if not await self._ask_for_missed(config):
                return every
        except SyncdError as exc:
            log.warning("deliveries missed are not known", error=str(exc))
            tally.add(Counted.DELIVERY_LOOKS, Ending.BROKEN_OFF)
            return self._asking.after(exc, every)
        except Exception:
            log.exception("fault in syncd")
            return every
        tally.add(Counted.DELIVERY_LOOKS, Ending.COMPLETED)
        self._asking.succeeded()
        return every

    async def _ask_for_missed(self, config: Config) -> bool:
        """Ask for what was missed; return whether there is a token.  Raise SyncdError."""
        token = config.github.token()
        if token is None:
            return False
        async with GitHubApi.open(config.github, token) as api:
            found, faults = await missed_of(api, config, self._clock)
            await self._ask_for(api, found)
        if faults:
            raise faults[0]
        return True

    async def _ask_for(self, api: GitHubApi, found: Iterable[Missed]) -> None:
        """Ask for each delivery that nobody asked for and that did not come another way."""
        services, refused, left = self._services, 0, ASKED_MAX
        for each in found:
            new = await services.executors.ledger(_new, services.ledger, each.attempts)
            for attempt in new[:left]:
                await self._pause(_PAUSE)
                told = {
                    "delivery": attempt.guid,
                    "kind": attempt.event,
                    "at": attempt.at.isoformat(timespec="seconds"),
                    "failed": attempt.status,
                }
                try:
                    await api.ask_again(each.hook, attempt.id)
                except GitHubUnavailableError:
                    raise
                except GitHubError as exc:
                    refused += 1
                    log.warning("delivery not asked for again", **told, error=str(exc))
                    services.ledger.tally.add(Counted.REDELIVERIES, Redelivery.REFUSED)
                    if refused >= _REFUSALS_MAX:
                        raise
                    continue
                refused = 0
                await services.executors.ledger(_note, services.ledger, attempt)
                log.info("delivery asked for again", **told)
                services.ledger.tally.add(Counted.REDELIVERIES, Redelivery.ASKED)
            left -= min(left, len(new))

    def _apply(self, config: Config) -> None:
        """Look at once where a reload may have mended something."""
        if config.github != self._known.github or config.server.names != self._known.server.names:
            self._asking.look_at_once()
        self._known = config


async def missed_of(
    api: GitHubApi, config: Config, clock: Clock
) -> tuple[list[Missed], list[GitHubError]]:
    """Return what was missed in the last three days, of each webhook, and what cannot be told.

    Raise GitHubError where no webhook leads to syncd, GitHubUnavailableError where GitHub is not
    to be asked any further.
    """
    since = clock.now() - KEPT
    found: list[Missed] = []
    hooks, faults = await _hooks(api, config)
    for place, hook in hooks.items():
        try:
            attempts = await api.attempts(place, since)
        except GitHubUnavailableError:
            raise
        except GitHubError as exc:
            faults.append(exc)
        else:
            newest = max(attempts, key=lambda each: each.at, default=None)
            found.append(Missed(place, hook.host, missed(attempts, since), newest))
    return found, faults


async def _hooks(api: GitHubApi, config: Config) -> tuple[dict[str, Hook], list[GitHubError]]:
    """Return the webhooks that lead to syncd, by their places, and what cannot be told of any."""
    named = config.github.hook
    hooks: dict[str, Hook] = {}
    faults: list[GitHubError] = []
    for place in named or _places(config):
        try:
            if "/hooks/" in place:
                hooks[place] = await api.hook(place)
            else:
                ours = _leading_here(await api.hooks(place), config, place)
                hooks |= {f"{place}/hooks/{hook.id}": hook for hook in ours}
        except GitHubUnavailableError:
            raise
        except GitHubError as exc:
            faults.append(exc)
    if not hooks:
        raise (
            faults[0]
            if faults
            else GitHubError(
                "no webhook at GitHub is known to lead to syncd",
                "write where it is set up into github.hook, and its host into server.names",
            )
        )
    hooks = dict(list(hooks.items())[:_HOOKS_MAX])
    # Most guesses are wrong: a repository is not always named as its packages are.
    return hooks, faults if named else []


def _places(config: Config) -> list[str]:
    """Return where the webhook may be set up, by the images of GitHub's registry."""
    places: dict[str, None] = {}
    for image in config.image:
        owner, *rest = image.reference.repository.split("/")
        if image.reference.registry == GITHUBS_REGISTRY and rest:
            places |= dict.fromkeys((f"orgs/{owner}", f"repos/{owner}/{rest[0]}"))
    return list(places)[:_PLACES_MAX]


def _leading_here(hooks: Iterable[Hook], config: Config, place: str) -> list[Hook]:
    """Return the webhooks that lead to this syncd; raise GitHubError where that is not clear."""
    ours = [hook for hook in hooks if hook.leads_to_syncd]
    if names := {name.strip("[]").rstrip(".").lower() for name in config.server.names}:
        return [hook for hook in ours if hook.host in names]
    if len(hosts := {hook.host for hook in ours}) > 1:
        raise GitHubError(
            f"webhooks of {place} lead to several hosts: {', '.join(sorted(hosts)):.200}",
            "write this syncd's own into server.names, or its webhook into github.hook",
        )
    return ours


def _new(ledger: Ledger, attempts: list[Attempt]) -> list[Attempt]:
    """Return those deliveries that did not come another way, and that nobody asked for."""
    return [
        attempt
        for attempt in attempts
        if ledger.seen(attempt.guid) is None and ledger.seen(_key(attempt)) is None
    ]


def _note(ledger: Ledger, attempt: Attempt) -> None:
    """Write down, for 90 days, that a delivery was asked for; it has led to no job yet."""
    ledger.accept([], {_key(attempt): []})


def _key(attempt: Attempt) -> str:
    """Return what stands for asking in the ledger's table of deliveries; no GUID has a blank."""
    return f"asked-for {attempt.guid}"
