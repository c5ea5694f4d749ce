"""By what a person may name one image of several that lie together, in a layout or an archive.

Sources: https://github.com/opencontainers/image-spec/blob/main/annotations.md for
`org.opencontainers.image.ref.name`; containerd's own `io.containerd.image.name`, which `docker
save` and `ctr export` write; `@N` and digests as skopeo has them
(https://github.com/containers/image/blob/main/docs/containers-transports.5.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from syncd.errors import ImageError, InvalidReferenceError
from syncd.oci.manifest import Descriptor
from syncd.oci.reference import Reference

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


def names_of(entry: Descriptor) -> list[str]:
    """Return the names that an entry of a layout's index has, the longest first."""
    notes = dict(entry.annotations)
    names = {notes.get(CONTAINERD_NAME, ""), notes.get(REF_NAME, "")} - {""}
    return sorted(names, key=len, reverse=True)


def named(entries: Sequence[tuple[Descriptor, Sequence[str]]], name: str, place: str) -> list[int]:
    """Return the positions of the images of this name: several where they have one name together.

    `entries` are the images with all their names.  An empty name means all of them, if they do not
    have different names.  Raise ImageError where there is none, or where the name is no choice.
    """
    called = [names[0] if names else str(top.digest) for top, names in entries]
    if name:
        found = [
            position
            for position, (top, names) in enumerate(entries)
            if _is_meant(name, top, names, position)
        ]
    else:
        found = list(range(len(entries)))
        distinct = {names[0] if names else "" for _, names in entries}
        if len(distinct) > 1 and len({top.digest for top, _ in entries}) > 1:
            raise several(place, called)
    if not found:
        has = ", ".join(called) or "0 images"
        raise ImageError(f"{place} has no image {name!r:.300}", f"it has: {has}")
    return found


def several(place: str, names: Iterable[str]) -> ImageError:
    """Return the error of a name that means several images."""
    return ImageError(f"{place} has several images", f"name one of: {', '.join(names)}")


def _is_meant(name: str, top: Descriptor, names: Sequence[str], position: int) -> bool:
    return (
        name in names
        or name.removeprefix("@") in (str(top.digest), str(position))
        or ((reference := _reference(name)) is not None and reference in map(_reference, names))
    )


def _reference(name: str) -> Reference | None:
    """Return the full name that a short one stands for; None for what is only a tag, or nothing."""
    try:
        return Reference.parse(name).with_default_tag()
    except InvalidReferenceError:
        return None
