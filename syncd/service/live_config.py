"""The running configuration: one object, held by whoever needs to know what is configured now.

`reload` takes a new file over whole or not at all.  It knows which keys the process cannot change
while it runs, and refuses these by name instead of applying half of what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from syncd.config import Config, DirectoryTargetSettings, load_config
from syncd.errors import ConfigError
from syncd.targets import DirectoryTarget, Target

_FIXED = ("state.directory", "server.listen", "server.socket")
"""Keys whose values the process was built around when it started."""


class LiveConfig:
    """What is configured now, and the targets that are made from it.  Lives in one event loop.

    `path` is the file that `reload` reads; None stands for the embedded default.
    """

    def __init__(self, config: Config, path: Path | None = None) -> None:
        self._path = path
        self._config = config
        self._targets = targets_of(config)
        self._listeners: list[Callable[[Config], None]] = []

    @property
    def path(self) -> Path | None:
        """The file that `reload` reads; None stands for the embedded default."""
        return self._path

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return self._config

    @property
    def targets(self) -> Mapping[str, Target]:
        """The configured targets by name."""
        return self._targets

    def on_change(self, listener: Callable[[Config], None]) -> None:
        """Have `listener` called with each new configuration, once it is in force."""
        self._listeners.append(listener)

    def reload(self) -> None:
        """Read the file again and put it in force; raise ConfigError and keep the old one.

        A key that cannot change while syncd runs is named in the error.
        """
        config = load_config(self._path)
        changed = [key for key in _FIXED if _value(config, key) != _value(self._config, key)]
        if changed:
            raise ConfigError(
                f"{' and '.join(changed)} cannot change while syncd runs",
                hint="restart syncd: systemctl restart syncd",
            )
        self._targets = targets_of(config)
        self._config = config
        for listener in self._listeners:
            listener(config)


def targets_of(config: Config) -> dict[str, Target]:
    """Return the configured targets by name."""
    targets: dict[str, Target] = {}
    for settings in config.target:
        if isinstance(settings, DirectoryTargetSettings):
            targets[settings.name] = DirectoryTarget(
                settings.name,
                settings.path,
                marker=config.state.paths.landmarks / settings.name,
                mountpoint=settings.mountpoint,
                reserve=settings.reserve,
                records=settings.records,
            )
        else:
            from syncd.targets.proxmox import ProxmoxTarget  # its libraries take their time

            targets[settings.name] = ProxmoxTarget(settings, config.state.paths.locks)
    return targets


def _value(config: Config, key: str) -> object:
    table, _, name = key.partition(".")
    return getattr(getattr(config, table), name)
