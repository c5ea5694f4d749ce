"""Which image a descriptor means: the search through indexes to one platform's manifest.

Matches as containerd does: exactly, then lower variants of the same architecture, and nothing that
needs features of the operating system that nobody asked for.  An entry without a platform is
judged by its config.

Sources: https://github.com/opencontainers/image-spec/blob/main/image-index.md;
https://github.com/containerd/platforms/blob/main/compare.go, `Only`
"""

from __future__ import annotations

from collections.abc import Sequence

from syncd.errors import ImageError, LimitError, NoImageError, VerificationError
from syncd.oci.document import alone
from syncd.oci.manifest import (
    Descriptor,
    Image,
    Index,
    Source,
    make_image,
    parse_document,
)
from syncd.oci.reference import Digest, Platform

_NESTED_INDEXES = 4
_DOCUMENTS_MAX = 64


def read_image(source: Source, top: Descriptor, platform: Platform) -> Image:
    """Follow `top` through indexes to the platform's manifest and config.

    Raise ImageError when the platform is absent or a document is not valid, and whatever
    `source` raises.
    """
    return _Search(source, top.digest, platform).read(top)


def read_one_of(
    source: Source, tops: Sequence[Descriptor], platform: Platform, place: str
) -> Image:
    """Read the only image for `platform` among several of one name, as a flat layout has them.

    Raise as `read_image`, and ImageError where several images are for the platform.
    """
    if len(tops) == 1:
        return read_image(source, tops[0], platform)
    ranked = matching(tops, platform)
    best = [top for rank, top in ranked if rank == ranked[0][0]]
    found = {top.digest: top for top in best}
    if not found:
        judged = [top for top in tops if top.platform is None and not top.is_attestation]
        images = _readable(source, judged[:_DOCUMENTS_MAX], platform)
        if len(images) == 1:
            return images[0]
        found = {top.digest: top for top in tops if top.digest in {i.digest for i in images}}
    if not found:
        raise absent(tops, platform)
    if len(found) > 1:
        raise ImageError(
            f"{place} has several images for {platform}",
            f"name one of: {', '.join(map(str, found))}",
        )
    return read_image(source, next(iter(found.values())), platform)


def matching(
    entries: Sequence[Descriptor], platform: Platform
) -> list[tuple[tuple[int, bool], Descriptor]]:
    """Return the entries that run on a platform, the best first, each with its rank.

    The nearest variant is the best; of two equal ones, the one for any version of the system.
    """
    ranked = [
        ((distance, bool(entry.os_version)), entry)
        for entry in entries
        if entry.platform is not None and not entry.os_features and not entry.is_attestation
        if (distance := platform.distance(entry.platform)) is not None
    ]
    return sorted(ranked, key=lambda pair: pair[0])


def absent(entries: Sequence[Descriptor], platform: Platform) -> ImageError:
    """Return the error of an image that is not there for a platform."""
    found = ", ".join(
        f"{entry.platform}{' with ' * bool(entry.os_features)}{' '.join(entry.os_features)}"
        for entry in entries
        if entry.platform and not entry.is_attestation
    )
    return ImageError(
        f"the image has no manifest for {platform} (it has: {found or 'none'})",
        "build the image for this platform, or configure another one",
    )


def _readable(source: Source, tops: Sequence[Descriptor], platform: Platform) -> list[Image]:
    images: dict[Digest, Image] = {}
    for top in tops:
        try:
            images[top.digest] = _Search(source, top.digest, platform).read(top, judge=True)
        except (VerificationError, LimitError):
            raise
        except ImageError:
            continue
    return list(images.values())


class _Search:
    """One search, which reads a bounded number of documents."""

    def __init__(self, source: Source, top: Digest, platform: Platform) -> None:
        self._source = source
        self._top = top
        self._platform = platform
        self._read = 0

    def read(self, descriptor: Descriptor, depth: int = 0, *, judge: bool = False) -> Image:
        """Return the image below a descriptor; raise ImageError where there is none."""
        self._read += 1
        if self._read > _DOCUMENTS_MAX:
            raise LimitError(f"{self._top} leads to more than {_DOCUMENTS_MAX} manifests")
        content = self._source.document(descriptor)
        with alone(content):
            document = parse_document(content, descriptor)
        if isinstance(document, Index):
            if depth == _NESTED_INDEXES:
                raise ImageError(f"{self._top} nests indexes more than {_NESTED_INDEXES} deep")
            return self._read_of(document, depth + 1)
        config = self._source.document(document.config)
        with alone(config):
            return make_image(
                self._top, descriptor.digest, document, config, self._platform, judge=judge
            )

    def _read_of(self, index: Index, depth: int) -> Image:
        faults = []
        chosen = [(entry, False) for _, entry in matching(index.images, self._platform)]
        chosen += [(entry, True) for entry in index.images if entry.platform is None]
        for entry, judge in chosen:
            try:
                return self.read(entry, depth, judge=judge)
            except (VerificationError, LimitError):
                raise
            except ImageError as exc:
                faults.append(exc)
        # A fault of what the index names for the platform, or of its only entry, is the reason.
        if faults and (not chosen[0][1] or len(index.images) == 1):
            raise faults[0]
        if not index.images:
            raise NoImageError(f"{self._top} is not a container image but an index without any")
        raise absent(index.images, self._platform)
