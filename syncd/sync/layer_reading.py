"""Layers on their way into a conversion: their ranges, and which of them need not be fetched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from syncd.errors import ImageError, NoRangesError, OneRangeError
from syncd.oci import (
    BlobCache,
    Descriptor,
    Digest,
    Image,
    OpenRanges,
    Range,
    RangeReader,
    Reader,
)
from syncd.progress import Advance, Progress
from syncd.sync.context import SyncContext
from syncd.sync.job import LayerBytes
from syncd.sync.tally import Counted, Instead, Step, Tally


@dataclass(slots=True)
class LayerReading:
    """A progress that tells layers that lie in the cache from those that are fetched.

    It also remembers which layers were which, how many bytes were fetched, and when the layers were
    all there; `flattening` is a time of `time.monotonic`.  A conversion that begins anew counts
    from its first attempt.
    """

    progress: Progress
    blobs: BlobCache
    begun: float = field(default_factory=time.monotonic)
    flattening: float | None = None
    read: dict[Digest, str] = field(default_factory=dict)
    fetched: Counter[Digest] = field(default_factory=Counter)

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Hear that a step begins; `cached` is a layer for which no registry is asked."""
        if step in ("layer", "parts"):
            digest = Digest.parse(subject)
            if self.blobs.holds(digest):
                step = "cached"
            if step == "layer":  # maybe after parts of it, which were not right
                self.read[digest] = step
            self.read.setdefault(digest, step)
            if step != "cached":
                return self._counted(digest, self.progress.begin(step, subject, total))
        elif step == "flatten":
            self.flattening = time.monotonic()
        return self.progress.begin(step, subject, total)

    def _counted(self, digest: Digest, tell: Advance) -> Advance:
        def advance(amount: int) -> None:
            self.fetched[digest] += amount
            tell(amount)

        return advance

    def count(self, tally: Tally, image: Image) -> LayerBytes:
        """Count how long a conversion took that is done now, and what it need not fetch.

        Return how many bytes it fetched, and how many it need not.
        """
        if self.flattening is not None:
            tally.took(Step.PULL, self.flattening - self.begun)
            tally.took(Step.FLATTEN, time.monotonic() - self.flattening)
        instead = {"cached": Instead.BLOB, None: Instead.UNPACKED}
        saved = 0
        for digest, size in layer_sizes(image).items():
            by, amount = instead.get(self.read.get(digest)), size
            if self.read.get(digest) == "parts":
                # What a mirror gave wrong was fetched, too.
                by, amount = Instead.PARTS, max(size - self.fetched[digest], 0)
            if by is not None:
                tally.add(Counted.SAVED, by, amount=amount)
                saved += amount
        return LayerBytes(self.fetched.total(), saved)


def ranges_of(blobs: BlobCache, context: SyncContext) -> OpenRanges:
    """Return what opens ranges of a blob: in the cache if it is there, else at the registry."""

    def open_ranges(blob: Descriptor, ranges: Sequence[Range]) -> Reader:
        def open_some(wanted: Sequence[Range]) -> Reader:
            if not blobs.holds(blob.digest):
                return context.repository.ranges(blob, wanted)
            if len(wanted) > 1:
                raise OneRangeError("a file is read a range at a time")
            try:
                return blobs.blob(blob, wanted[0].offset)
            except ImageError as exc:
                raise NoRangesError("the blob has just left the cache") from exc

        return RangeReader(ranges, open_some, context.progress.pause)

    return open_ranges


def layer_sizes(image: Image) -> dict[Digest, int]:
    """Return the bytes of each different layer's blob."""
    return {layer.descriptor.digest: layer.descriptor.size for layer in image.layers}
