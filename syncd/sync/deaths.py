"""Images whose conversions died: after some deaths nobody tries again by himself.

A process that the kernel killed may have been unlucky, since others took the memory, so its job is
tried again like any other that failed for a passing reason.  An image of which each attempt dies is
another thing: its failure counts as one that lasts, and waits for a sweep or a push.  Only the
image whose own process died is counted, however many ran beside it.

The count is of this run of the daemon, which survives these deaths.
"""

from __future__ import annotations

import threading

from syncd.errors import ConversionDiedError, ImageError
from syncd.oci import Digest

DEATHS_MAX = 3
"""Deaths in a row of an image's conversions after which its failure lasts."""
_IMAGES_MAX = 1000  # images that are remembered


class Deaths:
    """How often in a row the conversions of an image died.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Digest, int] = {}

    def count(self, image: Digest, death: ConversionDiedError) -> ImageError | ConversionDiedError:
        """Count a death; return the error that tells of it, which lasts after too many."""
        with self._lock:
            number = self._counts.pop(image, 0) + 1
            self._counts[image] = number
            if len(self._counts) > _IMAGES_MAX:
                del self._counts[next(iter(self._counts))]
        if number < DEATHS_MAX:
            return death
        return ImageError(
            f"given up, since {number} conversions of this image died: {death.what}",
            f"find out why, then ask for it again (syncd sync); {death.hint}",
        )

    def forget(self, image: Digest) -> None:
        """Hear that a conversion of an image did not die."""
        with self._lock:
            self._counts.pop(image, None)
