"""What is decided about a reference before its registry is asked.

Also here: what the way of a job needs of the process around it.  The service fulfils these
protocols; a test may fulfil them with less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from syncd.config import Config, ImageSettings
from syncd.formats import Format
from syncd.oci import CallerLogin, Platform, Reference, Repository
from syncd.progress import Pause, Stoppable
from syncd.sync.job import NO_LAYERS, LayerBytes
from syncd.targets import Target


class Running(Protocol):
    """The running configuration, and the targets that are made from it."""

    @property
    def config(self) -> Config:
        """The configuration as it is now."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """The configured targets by name."""


OpenRepository = Callable[[Reference, Pause, CallerLogin | None], Repository]
"""Gives the repository of a reference, opened with a caller's login, or as it is configured.

`Pause` is how the repository waits between attempts.
"""


CALLERS = "callers"
"""What the work of callers' own jobs is counted by, in place of the registry.

So however many registries a caller names, and however slow they are, what is watched goes on.
"""


@dataclass(frozen=True, slots=True)
class SyncContext:
    """One reference, how it is treated, and the doors to its registry and its targets.

    `platform` is the one whose manifest is wanted.  `login` is the caller's whose job this is, or
    None where the configuration says how to log in.  `layers` gets the bytes of the image's layers.
    """

    reference: Reference
    settings: ImageSettings
    repository: Repository
    targets: tuple[Target, ...]
    progress: Stoppable
    platform: Platform
    login: CallerLogin | None = None
    layers: list[LayerBytes] = field(default_factory=list)

    @property
    def layer_bytes(self) -> LayerBytes:
        """The bytes of the layers: later targets get the file that was made for the first one."""
        return self.layers[0] if self.layers else NO_LAYERS

    @property
    def is_private(self) -> bool:
        """Whether what is brought is for those alone who prove that they may have it, too."""
        return self.login is not None and self.login.is_given

    @property
    def counted_by(self) -> str:
        """By what its conversion is counted: the registry, or all callers' own jobs together."""
        return self.reference.registry if self.login is None else CALLERS

    @property
    def places(self) -> str:
        """The targets' names, by which looks at the same targets are counted together."""
        return ",".join(target.name for target in self.targets)

    def format_for(self, target: Target) -> Format:
        """Return the format that a target gets; raise PublishError when it cannot be asked."""
        wanted = self.settings.format
        return target.format() if wanted == "auto" else Format(wanted)
