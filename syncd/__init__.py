"""syncd keeps Proxmox VE's template storage in step with a container registry.

This is the face for programs that use syncd as a library:

    import syncd
    image = syncd.open_image("oci:DIR:latest", platform="linux/amd64")
    done = syncd.flatten(image, "base.tar.zst", format="rootfs", level=3)
    print(done.digest, done.size, done.diff_id)

A name is loaded when it is first used (PEP 562): `import syncd` alone loads no other library, so
that every module can ask for `__version__`, and commands start fast.  More can be imported from
the packages' own faces, such as `syncd.convert` and `syncd.targets`; what those do not name is
private and changes without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncd.convert import Flattened, flatten
    from syncd.errors import SyncdError
    from syncd.limits import Limits
    from syncd.oci import OpenedImage, Platform, Reference, open_image

__all__ = [
    "Flattened",
    "Limits",
    "OpenedImage",
    "Platform",
    "Reference",
    "SyncdError",
    "__version__",
    "flatten",
    "open_image",
]

try:
    from syncd._version import __version__
except ImportError:  # a tree that was never installed
    __version__ = "0.1.0.dev0"

_HOMES = {
    "Flattened": "syncd.convert",
    "Limits": "syncd.limits",
    "OpenedImage": "syncd.oci",
    "Platform": "syncd.oci",
    "Reference": "syncd.oci",
    "SyncdError": "syncd.errors",
    "flatten": "syncd.convert",
    "open_image": "syncd.oci",
}
"""Which module each name comes from."""

if not TYPE_CHECKING:  # a type checker would take every unknown name for one that is here

    def __getattr__(name: str) -> object:
        """Load a name of the face; raise AttributeError for a name that is none."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
