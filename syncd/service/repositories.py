"""How this process opens repositories: by the configuration of the moment, its mirrors included.

Tokens, waits that registries ask for, and which mirrors are left alone are the process's, not a
job's, so they outlive each opening.
"""

from __future__ import annotations

from syncd.config import Config
from syncd.errors import InvalidReferenceError
from syncd.oci import (
    CallerAccess,
    CallerLogin,
    MirrorLocation,
    Reference,
    RegistryAccess,
    Repository,
)
from syncd.oci.registry import (
    IMPATIENT,
    LeftAlone,
    Logins,
    Mirror,
    MirroredRepository,
    Registry,
    Timeouts,
)
from syncd.progress import Pause
from syncd.report import RegistryTraffic, configured_registries
from syncd.service.live_config import LiveConfig
from syncd.sync import Tally


class Repositories:
    """Opens repositories.  Safe to use from several threads."""

    def __init__(self, live: LiveConfig, tally: Tally) -> None:
        self._live = live
        self._tally = tally
        self._logins = Logins()
        self._left_alone = LeftAlone()
        self._configured = configured_registries(live.config)
        live.on_change(self._apply)

    def open(
        self, reference: Reference, pause: Pause, login: CallerLogin | None = None
    ) -> Repository:
        """Return the repository of a reference, behind its registry's mirrors if it has some.

        With a caller's `login` it is opened with that alone, and no mirror is asked: what a mirror
        gives to this host says nothing of what the caller may have.  `pause` waits between
        attempts, and may raise to give up.
        """
        config = self._live.config
        settings = config.registry_for(reference.registry)
        timeouts = Timeouts(slowest=config.limits.slowest)
        public = not config.names_host(reference.registry)
        if login is not None:
            access = CallerAccess(settings, login)
            return self._registry(reference, access, pause, timeouts, public=public)
        source = self._registry(reference, settings, pause, timeouts, public=public)
        mirrors = [
            Mirror(location, self._registry(there, access, pause, IMPATIENT))
            for location, access in config.mirrors_of(reference.registry)
            if (there := _place(location, reference)) is not None
        ]
        if not mirrors:
            return source
        return MirroredRepository(source, mirrors, self._left_alone, tags=settings.mirror_tags)

    def _registry(
        self,
        place: Reference,
        access: RegistryAccess,
        pause: Pause,
        timeouts: Timeouts,
        *,
        public: bool = False,
    ) -> Registry:
        traffic = RegistryTraffic(self._tally, self._configured, place.registry)

        def stand_back(seconds: float) -> None:
            traffic.waited(seconds)
            pause(seconds)

        return Registry(
            place,
            access,
            self._live.config.limits.bounds(),
            pause=stand_back,
            timeouts=timeouts,
            logins=self._logins,
            traffic=traffic,
            public=public,
        )

    def _apply(self, config: Config) -> None:
        self._configured = configured_registries(config)


def _place(location: MirrorLocation, reference: Reference) -> Reference | None:
    """Return the repository as a mirror has it; None where its name is too long to be there."""
    try:
        return location.reference(reference)
    except InvalidReferenceError:
        return None
