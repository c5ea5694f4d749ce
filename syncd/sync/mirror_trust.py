"""A conversion of layers that mirrors gave: where a blob is wrong, others are asked for it.

The conversion asks others for parts of a layer by itself.  A blob that is read whole is verified
when its bytes have gone into the conversion already, which fails by it; so that is begun anew.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from syncd.convert import WrittenTemplate
from syncd.errors import ImageError, VerificationError
from syncd.oci import BlobReader, Descriptor, Reader, Repository

log = structlog.stdlib.get_logger()


class MirrorTrust:
    """Knows which blobs of one image turned out wrong, and has them read again."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._wrong: dict[Descriptor, bool] = {}  # read last; whether bytes were kept before

    def watched(self, blob: Descriptor, reader: BlobReader) -> Reader:
        """Return a reader of the blob, which verifies it as `reader` does."""

        def right() -> None:
            self._wrong.pop(blob, None)
            self._repository.vouch(blob, whole=True)

        def wrong() -> None:
            self._wrong[blob] = reader.was_kept

        return _Watched(reader, right, wrong)

    def converted(self, convert: Callable[[], WrittenTemplate]) -> WrittenTemplate:
        """Return what `convert` wrote, called again while a blob that is wrong may come right.

        Other mirrors, or the registry, may give the blob.  What was kept of the blob is discarded
        by then, so that the blob is read anew, once.
        """
        kept: set[Descriptor] = set()
        try:
            while True:
                self._wrong.clear()
                try:
                    return convert()
                except ImageError:
                    wrong = dict(self._wrong)
                    others = [self._repository.mistrust(blob, whole=True) for blob in wrong]
                    gone = {blob for blob, was_kept in wrong.items() if was_kept} - kept
                    if not any(others) and not gone:
                        raise
                    for blob in gone:
                        log.warning("kept bytes were wrong", blob=str(blob.digest))
                    kept |= gone
        finally:
            self._repository.settle()


class _Watched:
    """A reader that tells when the bytes turn out to be right, or wrong."""

    def __init__(
        self, reader: Reader, right: Callable[[], None], wrong: Callable[[], None]
    ) -> None:
        self._reader = reader
        self._right = right
        self._wrong = wrong
        self.close = reader.close

    def read(self, size: int, /) -> bytes:
        try:
            data = self._reader.read(size)
        except VerificationError:
            self._wrong()
            raise
        if not data:
            self._right()
        return data
