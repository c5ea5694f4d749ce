"""Opens the image that a person names: from a registry, a layout or an archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from syncd.errors import InvalidReferenceError, NoRangesError
from syncd.limits import Limits
from syncd.oci.access import AnonymousAccess, RegistryAccess
from syncd.oci.archive import Archive
from syncd.oci.blob_reader import BlobReader
from syncd.oci.docker_archive import DockerArchive
from syncd.oci.image import read_one_of
from syncd.oci.layout import Layout
from syncd.oci.manifest import Descriptor, Image, Reader, Source
from syncd.oci.plain_folder import PlainFolder
from syncd.oci.range_reader import Range
from syncd.oci.reference import FOREIGN_TRANSPORTS, Platform, Reference

_LOCAL: dict[str, Callable[[Path, Limits], Layout | Archive | DockerArchive]] = {
    "oci": Layout,
    "oci-archive": Archive,
    "docker-archive": DockerArchive,
}

OpenBlob = Callable[[Descriptor], Reader]
"""Opens a blob for one reading, which verifies size and digest at the latest at its end."""
OpenRanges = Callable[[Descriptor, Sequence[Range]], Reader]
"""Opens ranges of a blob, in ascending order, as one stream; nothing of it is verified."""


def _has_no_mirrors(_: Descriptor) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """One platform's image with its documents read, and the way to its layers.

    `open_ranges` is None where layers are to be read whole.  `mistrust` is called where ranges of a
    blob are wrong: it returns whether others may give them, who are asked from now on.
    `vouch` is called where a layer was put together from ranges of a blob, which so were right.
    """

    image: Image
    open_layer: OpenBlob
    open_ranges: OpenRanges | None = None
    mistrust: Callable[[Descriptor], bool] = _has_no_mirrors
    vouch: Callable[[Descriptor], object] = _has_no_mirrors

    def ranges(self, blob: Descriptor, ranges: Sequence[Range]) -> Reader:
        """Open ranges of a layer's blob; raise NoRangesError where there are none to be had."""
        if self.open_ranges is None:
            raise NoRangesError("layers are read whole")
        return self.open_ranges(blob, ranges)


def open_image(
    name: str,
    platform: Platform | str = "linux/amd64",
    *,
    access: Callable[[str], RegistryAccess] = AnonymousAccess,
    limits: Limits | None = None,
) -> OpenedImage:
    """Read the documents of the image that a person named; its layers are read later.

    `name` is `oci:DIR[:NAME]` for an OCI image layout, `oci-archive:FILE[:NAME]` for a tar of one,
    `docker-archive:FILE[:NAME]` for what `docker save` writes, `dir:DIR` for a folder of skopeo's,
    or a registry reference, with or without `docker://` in front.  NAME is a tag or whole name that
    the image has there, its digest, or `@N` for its position.  `access` says how to speak to a
    registry, given its host.  Raise InvalidReferenceError for a name that is none, ImageError for
    an image that is not right or not there, StorageError for a disk and RegistryError for a
    registry that refuses.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    source, tops = _find(name, access, limits or Limits())

    def open_layer(layer: Descriptor) -> Reader:
        return BlobReader(layer, source.blob(layer), open_at=partial(source.blob, layer))

    return OpenedImage(read_one_of(source, tops, wanted, name), open_layer)


def _find(
    name: str, access: Callable[[str], RegistryAccess], limits: Limits
) -> tuple[Source, list[Descriptor]]:
    """Return the source that a person named, and the images there that may be meant."""
    transport, colon, rest = name.partition(":")
    if colon and transport in ("dir", *_LOCAL) and not rest.partition(":")[0]:
        raise InvalidReferenceError(
            f"{name[:300]!r} names no folder or file", f"write {transport}:PATH"
        )
    if transport == "dir":
        folder = PlainFolder(Path(rest), limits)
        return folder, folder.tops()
    if transport in _LOCAL:
        path, _, wanted = rest.partition(":")
        local = _LOCAL[transport](Path(path), limits)
        return local, local.tops(wanted)
    if transport in FOREIGN_TRANSPORTS:  # as a reference it would be asked of Docker Hub
        raise InvalidReferenceError(
            f"syncd does not read {transport}: {name[:300]!r}",
            f"copy it first: skopeo copy {transport}:... oci-archive:FILE",
        )
    from syncd.oci.registry import Registry

    reference = Reference.parse(name.removeprefix("docker://")).with_default_tag()
    registry = Registry(reference, access(reference.registry), limits)
    return registry, [registry.resolve(reference)]
