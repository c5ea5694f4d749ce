"""A conversion of bytes that mirrors gave: where these are wrong, others are asked, and it is told.

Bytes that are not those of their digest are a mirror's fault, or the image's.  Who is to blame
shows when others were asked: if their bytes are right, the mirror lied.  So an image that is wrong
in the registry, too, keeps nobody off a mirror.
"""

from __future__ import annotations

from collections.abc import Callable

from syncd.convert import WrittenTemplate
from syncd.errors import ImageError
from syncd.oci import Repository


def converted(convert: Callable[[], WrittenTemplate], repository: Repository) -> WrittenTemplate:
    """Return what `convert` wrote, tried again while mirrors' bytes may be to blame for a fault."""
    mistrusted, lied = 0, False
    try:
        while True:
            try:
                written = convert()
            except ImageError:
                known, mistrusted = mistrusted, repository.mistrust()
                if mistrusted == known:
                    raise
            else:
                lied = bool(mistrusted) or written.was_misled
                return written
    finally:
        repository.settle(lied=lied)
