"""The networks that GitHub delivers from, as its API names them: learnt, kept, and learnt anew.

They are asked for at the start and every hour, where `server.hook_addresses` wants them.  What was
learnt is kept in the state, so that a start without GitHub knows what the last process knew.  While
GitHub cannot be asked, the last answer counts, however old it is; `syncd check` tells its age.

Source: https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-githubs-ip-addresses
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from syncd.config import GITHUBS_NETWORKS, Config
from syncd.errors import GitHubError, SyncdError
from syncd.events import Network, networks_of
from syncd.files import atomic_write, make_folder
from syncd.service.asking import Asking
from syncd.service.clock import Clock, HostClock
from syncd.service.live_config import LiveConfig
from syncd.sync import Executors

log = structlog.stdlib.get_logger()

_EVERY = 3600.0  # seconds
_FILE_MAX = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Learnt:
    """What GitHub named, and when."""

    networks: tuple[Network, ...]
    at: datetime


class HookNetworks:
    """Keeps what is known true.  Lives in one event loop."""

    def __init__(self, live: LiveConfig, executors: Executors, clock: Clock | None = None) -> None:
        self._live = live
        self._executors = executors
        self._clock = clock or HostClock()
        self._asking = Asking(self._clock)
        self._learnt = learnt(live.config) if _wanted(live.config) else None
        live.on_change(self._apply)

    @property
    def known(self) -> tuple[Network, ...] | None:
        """The networks that GitHub named last, or None while it has named none."""
        return self._learnt.networks if self._learnt else None

    async def keep(self) -> None:
        """Ask when it is time, again and again until cancelled."""
        await self._asking.keep(self.look)

    async def look(self) -> float:
        """Ask GitHub, if that is wanted; return the seconds until the next look.  Never raises."""
        config = self._live.config
        if not _wanted(config):
            return _EVERY
        try:
            await self._learn(config)
        except SyncdError as exc:
            log.warning("GitHub's networks are not learnt", error=str(exc))
            return self._asking.after(exc, _EVERY)
        except Exception:
            log.exception("fault in syncd")
            return _EVERY
        self._asking.succeeded()
        return _EVERY

    async def _learn(self, config: Config) -> None:
        from syncd.service.github_api import GitHubApi  # its library takes its time

        async with GitHubApi.open(config.github, None) as api:
            networks = await api.networks()
        if networks != self.known:
            log.info("GitHub's networks", networks=[str(network) for network in networks])
        self._learnt = Learnt(networks, self._clock.now())
        file = config.state.paths.hook_networks
        await self._executors.tidying.run(_write, file, self._learnt)

    def _apply(self, config: Config) -> None:
        if _wanted(config) and self._learnt is None:
            self._learnt = learnt(config)
            self._asking.look_at_once()


def learnt(config: Config) -> Learnt | None:
    """Return what the state keeps of GitHub's networks, or None for nothing that can be read."""
    try:
        with config.state.paths.hook_networks.open("rb") as file:
            kept = json.loads(file.read(_FILE_MAX))
        at = datetime.fromisoformat(kept["at"])
        return Learnt(networks_of(kept), at if at.tzinfo else at.replace(tzinfo=UTC))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, GitHubError):
        return None


def _wanted(config: Config) -> bool:
    return GITHUBS_NETWORKS in config.server.hook_addresses


def _write(path: Path, found: Learnt) -> None:
    """Keep what was learnt, in the form of GitHub's own answer; raise StorageError."""
    kept = {"hooks": [str(network) for network in found.networks], "at": found.at.isoformat()}
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(json.dumps(kept).encode())
