"""The paths of a layer's members, in their normal form.

Pure.  A member's name means a place below the image's root, whether it is absolute, begins with
`./`, or has slashes at its end.

Source: https://github.com/opencontainers/image-spec/blob/main/layer.md
"""

from __future__ import annotations

from syncd.errors import ImageError
from syncd.tar import quote

WHITEOUT = b".wh."
"""How the name of a whiteout begins."""
_LONGEST_NAME = 255  # NAME_MAX, linux/limits.h
_ODD_BEGINNINGS = (b"", b"/", b".")  # of paths that may not be in their normal form


def split(path: bytes) -> tuple[bytes, bytes]:
    """Part a member's name into its parent's normal path and its last component.

    Every name means a place below the image's root, absolute or not.
    """
    name = path.removeprefix(b"./")
    if (
        len(name) <= _LONGEST_NAME
        and name[:1] not in _ODD_BEGINNINGS
        and b"/." not in name
        and b"//" not in name
    ):
        parent, _, last = name.removesuffix(b"/").rpartition(b"/")
        return parent, last
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError(f"the path {quote(path)} climbs out with '..'")
    for part in parts:
        check_length(part, path)
    return (b"/".join(parts[:-1]), parts[-1]) if parts else (b"", b"")


def is_below_whiteout(parent: bytes) -> bool:
    """Tell whether a normal path leads through a name that only whiteouts may have."""
    return parent.startswith(WHITEOUT) or b"/" + WHITEOUT in parent


def check_length(name: bytes, path: bytes) -> None:
    """Raise ImageError for a part of a path that no file system takes."""
    if len(name) > _LONGEST_NAME:
        raise ImageError(f"a part of {quote(path)} is longer than {_LONGEST_NAME} bytes")
