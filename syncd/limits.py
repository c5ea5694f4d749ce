"""Bounds on what an image may ask of this machine.

An image comes from the internet: without bounds a few kilobytes could ask for all memory, all
disk or all time.  Each bound is far above what real images need, and each can be configured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from syncd.errors import LimitError

Hold = Callable[[int], None]
"""Counts bytes of memory before they are taken, or after they were given back if the number is
negative; raises where they go beyond a bound."""


def unbounded(_: int) -> None:
    """Count no memory."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One of the bounds: its name in the configuration, and the largest value it allows."""

    name: str
    maximum: int
    advice: str = ""
    """What else to do where the bound is raised."""

    def check(self, value: int, subject: str) -> None:
        """Raise LimitError, which names `subject` and the bound, when `value` is beyond it."""
        if value > self.maximum:
            raise self.error(subject)

    def error(self, subject: str) -> LimitError:
        """Return the error that `subject` goes beyond the bound."""
        return LimitError(
            f"{subject} goes beyond the bound of {self.maximum} ({self.name})",
            f"if the image is meant to be so large, raise limits.{self.name} in the "
            f"configuration{self.advice}",
        )


@dataclass(frozen=True, slots=True, init=False)
class Limits:
    """The bounds of one image, each constructed from its largest value: `Limits(layers=100)`."""

    document: Bound
    """Bytes of one manifest, index or config: what registries themselves accept
    (https://github.com/opencontainers/distribution-spec/blob/main/spec.md, "Pushing Manifests")."""
    layers: Bound
    """Layers of an image."""
    entries: Bound
    """Members of all layers together, and the directories that they imply."""
    path: Bound
    """Bytes of one path or link target: PATH_MAX without its NUL (linux/limits.h)."""
    header: Bound
    """Bytes of one PAX header or GNU long name, as in Go's archive/tar (`maxSpecialFileSize`)."""
    metadata: Bound
    """Bytes of the names, link targets, attributes and sparse maps of all layers together: what
    is held in memory, 2,000,000 members of ordinary images among it."""
    unpacked: Bound
    """Bytes of all layers together once decompressed, and of all files once written out."""
    memory: Bound
    """Bytes of memory that all conversions which run at a time hold together, counted before they
    are taken.  The rest of the process takes less than 100 MiB, so that it is killed at no
    MemoryMax of 512 MiB (systemd/syncd.service); docs/reliability.md has the measurements."""

    def __init__(
        self,
        *,
        document: int = 4 << 20,
        layers: int = 500,
        entries: int = 2_000_000,
        path: int = 4095,
        header: int = 1 << 20,
        metadata: int = 256 << 20,
        unpacked: int = 64 << 30,
        memory: int = 384 << 20,
    ) -> None:
        for bound in (
            Bound("document", document),
            Bound("layers", layers),
            Bound("entries", entries),
            Bound("path", path),
            Bound("header", header),
            Bound("metadata", metadata),
            Bound("unpacked", unpacked),
            Bound("memory", memory, ", and MemoryMax of the service by as much"),
        ):
            object.__setattr__(self, bound.name, bound)


class Allowance:
    """How much of one bound is left, shared by the threads that use it up."""

    def __init__(self, bound: Bound, subject: str, whole: Allowance | None = None) -> None:
        self._bound = bound
        self._subject = subject
        self._whole = whole
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
            self._bound.check(self._used, self._subject)
        if self._whole is not None:
            self._whole.take(amount)

    def share(self) -> Allowance:
        """Return an allowance that uses this one up, too, and knows how much of that it did."""
        return Allowance(self._bound, self._subject, self)


class Budget:
    """What the layers of one image may use up together: bytes on disk, and in memory.

    `hold` is told how many bytes of memory are going to be taken.
    """

    def __init__(self, limits: Limits, hold: Hold = unbounded) -> None:
        self.limits = limits
        self.hold = hold
        self.unpacked = Allowance(limits.unpacked, "the size of all layers")
        self.metadata = Allowance(limits.metadata, "the metadata of all layers")

    def share(self) -> Budget:
        """Return the budget of one of the layers: what it uses up, it uses up of all."""
        own = copy(self)
        own.unpacked, own.metadata = self.unpacked.share(), self.metadata.share()
        return own
