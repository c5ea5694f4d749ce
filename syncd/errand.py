"""An errand: a reference, and everything that is decided before the registry is asked."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.job import Stoppable
from syncd.reference import Platform, Reference
from syncd.registry import Registry
from syncd.settings import ImageSettings
from syncd.template import Format, Target


@dataclass(frozen=True, slots=True)
class Errand:
    """One reference, with everything that is decided before the registry is asked."""

    reference: Reference
    settings: ImageSettings
    registry: Registry
    targets: tuple[Target, ...]
    progress: Stoppable

    @property
    def platform(self) -> Platform:
        """The platform whose manifest is wanted."""
        return Platform.parse(self.settings.platform)

    def form_for(self, target: Target) -> Format:
        """Return the format that a target gets."""
        form = self.settings.format
        return target.format() if form == "auto" else Format(form)
