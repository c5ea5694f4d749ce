"""Bounds on what an image may ask of this machine.

An image comes from the internet: without bounds a few kilobytes could ask for all memory, all
disk or all time.  Each bound is far above what real images need, and each can be configured.
"""

from __future__ import annotations

import threading
from copy import copy
from dataclasses import dataclass

from syncd.errors import LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one image; going beyond one is a LimitError that names it."""

    document: int = 4 << 20
    """Bytes of one manifest, index or config: what registries themselves accept
    (https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Pushing Manifests")."""
    layers: int = 500
    """Layers of an image."""
    entries: int = 2_000_000
    """Members of all layers together, and the directories that they imply."""
    path: int = 4095
    """Bytes of one path or link target: PATH_MAX without its NUL (linux/limits.h)."""
    header: int = 1 << 20
    """Bytes of one PAX header or GNU long name, as in Go's archive/tar (`maxSpecialFileSize`)."""
    metadata: int = 256 << 20
    """Bytes of the names, link targets, attributes and sparse maps of all layers together: what
    is held in memory, 2,000,000 members of ordinary images among it."""
    unpacked: int = 64 << 30
    """Bytes of all layers together once decompressed, and of all files once written out."""

    def check(self, bound: str, value: int, subject: str) -> None:
        """Raise LimitError when `value` is beyond the named bound."""
        most: int = getattr(self, bound)
        if value > most:
            raise LimitError(
                f"{subject} goes beyond the bound of {most} ({bound})",
                f"if the image is meant to be so large, raise limits.{bound} in the configuration",
            )


class Allowance:
    """How much of one bound is left, shared by the threads that use it up."""

    def __init__(
        self, limits: Limits, bound: str, subject: str, whole: Allowance | None = None
    ) -> None:
        self._whole = whole
        self._limits = limits
        self._bound = bound
        self._most: int = getattr(limits, bound)
        self._subject = subject
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """How much is used up."""
        return self._used

    def take(self, amount: int) -> None:
        """Use up `amount`; raise LimitError when the bound is passed."""
        with self._lock:
            self._used += amount
            if self._used > self._most:
                self._limits.check(self._bound, self._used, self._subject)
        if self._whole is not None:
            self._whole.take(amount)

    def share(self) -> Allowance:
        """Return an allowance that uses this one up, too, and knows how much of that it did."""
        return Allowance(self._limits, self._bound, self._subject, self)


class Budget:
    """What the layers of one image may use up together: bytes on disk, and in memory."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.unpacked = Allowance(limits, "unpacked", "the size of all layers")
        self.metadata = Allowance(limits, "metadata", "the metadata of all layers")

    def share(self) -> Budget:
        """Return the budget of one of the layers: what it uses up, it uses up of all."""
        own = copy(self)
        own.unpacked, own.metadata = self.unpacked.share(), self.metadata.share()
        return own
