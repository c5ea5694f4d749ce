"""Where the ranges of a layer come from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from syncd.errors import ImageError, NoRangesError
from syncd.oci import BlobCache, Descriptor, Digest, Range, Reader
from syncd.sync.context import SyncContext
from syncd.sync.layer_reading import ranges_of

BLOB = Descriptor("application/octet-stream", Digest.of(b"content"), 7)


class Leaving:
    """A cache whose blob is dropped once it was looked for."""

    def holds(self, _: Digest) -> bool:
        """Say yes."""
        return True

    def blob(self, wanted: Descriptor, _: int) -> Reader:
        """Lack it."""
        raise ImageError(f"the cache lacks the blob {wanted.digest}")


def test_blob_that_leaves_the_cache() -> None:
    """It is no fault of the image, nor of who gave other ranges of it, and is read whole."""
    context = cast(
        SyncContext, SimpleNamespace(repository=None, progress=SimpleNamespace(pause=None))
    )
    stream = ranges_of(cast(BlobCache, Leaving()), context)(BLOB, [Range(0, 1)])
    with pytest.raises(NoRangesError):
        stream.read(1)
    stream.close()
