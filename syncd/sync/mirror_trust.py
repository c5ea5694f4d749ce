"""A conversion of layers that mirrors gave: where a blob is wrong, others are asked for it.

The conversion asks others for parts of a layer by itself.  A blob that is read whole is verified
when its bytes have gone into the conversion already, which fails by it; so that is begun anew, and
layers that were right are not read again.
"""

from __future__ import annotations

from collections.abc import Callable

from syncd.convert import WrittenTemplate
from syncd.errors import ImageError, VerificationError
from syncd.oci import Descriptor, Reader, Repository


class MirrorTrust:
    """Knows which blobs of one image turned out wrong, and has others asked for them."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._wrong: set[Descriptor] = set()

    def watched(self, blob: Descriptor, reader: Reader) -> Reader:
        """Return a reader of the blob, which verifies it as `reader` does."""
        return _Watched(reader, lambda: self._wrong.add(blob))

    def converted(self, convert: Callable[[], WrittenTemplate]) -> WrittenTemplate:
        """Return what `convert` wrote, called again while others may give a blob that is wrong."""
        again: set[Descriptor] = set()
        while True:
            self._wrong.clear()
            try:
                written = convert()
            except ImageError:
                others = {
                    blob
                    for blob in tuple(self._wrong)
                    if self._repository.mistrust(blob, whole=True)
                }
                if not others:
                    raise
                again |= others
            else:
                for blob in again:
                    self._repository.vouch(blob, whole=True)
                return written


class _Watched:
    """A reader that tells when the bytes turn out wrong."""

    def __init__(self, reader: Reader, wrong: Callable[[], None]) -> None:
        self._reader = reader
        self._wrong = wrong
        self.close = reader.close

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except VerificationError:
            self._wrong()
            raise
