"""Which tags the configuration watches, and in which targets.  Pure values."""

from __future__ import annotations

from syncd.config import Config, ImageSettings
from syncd.oci import Reference
from syncd.sync.conditions import Place


class Watched:
    """What a configuration watches, by repository: made once for many questions."""

    def __init__(self, config: Config) -> None:
        self._targets = tuple(target.name for target in config.target)
        self._images: dict[str, list[ImageSettings]] = {}
        for settings in config.image:
            self._images.setdefault(settings.reference.name, []).append(settings)

    def places_of(self, reference: Reference) -> tuple[Place, ...]:
        """Return a watched tag in each of its targets; nothing for what is not watched."""
        if not reference.tag or reference.digest:
            return ()
        for settings in self._images.get(reference.name, ()):
            if settings.watches(reference.tag):
                return tuple(Place(reference, name) for name in self._names(settings))
        return ()

    def lists_of(self, repository: Reference) -> tuple[Place, ...]:
        """Return a repository in each target for whose tags a list of tags is read."""
        names = {
            name: None
            for settings in self._images.get(repository.name, ())
            if settings.has_patterns
            for name in self._names(settings)
        }
        return tuple(Place(repository, name) for name in names)

    def __contains__(self, place: Place) -> bool:
        if place.reference.tag:
            return place in self.places_of(place.reference)
        return place in self.lists_of(place.reference)

    def _names(self, settings: ImageSettings) -> tuple[str, ...]:
        return self._targets if settings.targets is None else settings.targets
