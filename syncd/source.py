"""Where an image comes from when a person names it: a registry, a layout or an archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from syncd.layout import Layout, Verified
from syncd.manifest import Descriptor, Reader, Source
from syncd.ociarchive import Archive
from syncd.reference import Reference
from syncd.registry import Registry
from syncd.settings import Config


def named(source: str, config: Config, *, plain_http: bool = False) -> tuple[Source, Descriptor]:
    """Return what a person named as a source, and the descriptor of the image that is meant.

    `oci:DIR[:TAG]` is an OCI image layout, `oci-archive:FILE[:TAG]` a tar of one; anything else is
    a registry reference, with or without `docker://` in front.  Raise InvalidReferenceError,
    ImageError, StorageError or RegistryError.
    """
    kind, _, rest = source.partition(":")
    if kind in ("oci", "oci-archive"):
        place, _, tag = rest.partition(":")
        local = (Layout if kind == "oci" else Archive)(Path(place), config.limits.bounds())
        return local, local.find(tag)
    reference = Reference.parse(source.removeprefix("docker://")).with_default_tag()
    settings = config.registry_for(reference.registry)
    if plain_http:
        settings = settings.model_copy(update={"plain_http": True})
    registry = Registry(reference, settings, config.limits.bounds())
    return registry, registry.resolve(reference)


def verified(source: Source) -> Callable[[Descriptor], Reader]:
    """Return a way to open the layers of a source so that each reading verifies itself."""
    return lambda descriptor: Verified(source.blob(descriptor), descriptor)
