"""What the progress of a conversion tells of its layers: which are fetched, which need not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from syncd.oci import BlobCache, Digest, Image
from syncd.progress import Advance, Progress
from syncd.sync.tally import Counted, Instead, Step, Tally


@dataclass(slots=True)
class LayerReading:
    """A progress that tells layers that lie in the cache from those that are fetched.

    It also remembers which layers were which, and when the layers were all there; `flattening` is
    a time of `time.monotonic`.  A conversion that begins anew counts from its first attempt.
    """

    progress: Progress
    blobs: BlobCache
    begun: float = field(default_factory=time.monotonic)
    flattening: float | None = None
    read: dict[Digest, str] = field(default_factory=dict)

    def begin(self, step: str, subject: str, total: int | None) -> Advance:
        """Hear that a step begins; `cached` is a layer for which no registry is asked."""
        if step == "layer":
            digest = Digest.parse(subject)
            if self.blobs.holds(digest):
                step = "cached"
            self.read.setdefault(digest, step)
        elif step == "flatten":
            self.flattening = time.monotonic()
        return self.progress.begin(step, subject, total)

    def count(self, tally: Tally, image: Image) -> None:
        """Count how long a conversion took that is done now, and what it need not fetch."""
        if self.flattening is not None:
            tally.took(Step.PULL, self.flattening - self.begun)
            tally.took(Step.FLATTEN, time.monotonic() - self.flattening)
        instead = {"cached": Instead.BLOB, None: Instead.UNPACKED}
        for digest, size in layer_sizes(image).items():
            if (saved := instead.get(self.read.get(digest))) is not None:
                tally.add(Counted.SAVED, saved, amount=size)


def layer_sizes(image: Image) -> dict[Digest, int]:
    """Return the bytes of each different layer's blob."""
    return {layer.descriptor.digest: layer.descriptor.size for layer in image.layers}
