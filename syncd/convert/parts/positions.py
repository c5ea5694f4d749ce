"""Where the table of contents and the tar-split data of a layer lie in its blob.

The layer's descriptor in the manifest says it, in annotations.  Pure.

Source: https://github.com/containers/storage/blob/main/pkg/chunked/internal/minimal/compression.go
(`ManifestChecksumKey`, `ManifestInfoKey`, `TarSplitInfoKey`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from syncd.errors import ImageError, InvalidReferenceError
from syncd.oci import Descriptor, Digest

STORED_MAX = 16 << 20
"""Bytes of a table, or of tar-split data, as they lie in the blob, at most: both are held."""
TABLE_MAX = 256 << 20
"""Bytes of a table at most, once it is decompressed; a file has about 400."""
TAR_SPLIT_MAX = 512 << 20
"""Bytes of tar-split data at most, once decompressed; a file has about a thousand."""

_PREFIX = "io.github.containers.zstd-chunked."
_CHECKSUM = f"{_PREFIX}manifest-checksum"
_TABLE = f"{_PREFIX}manifest-position"
_TAR_SPLIT = f"{_PREFIX}tarsplit-position"
_CRFS = 1  # the only type of table that there is (`ManifestTypeCRFS`)
_NUMBER = re.compile(r"[0-9]{1,15}")


class Stretch(NamedTuple):
    """Bytes of a blob, and how many they are once decompressed."""

    offset: int
    size: int
    plain: int

    @property
    def end(self) -> int:
        """The place behind the last byte."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Positions:
    """Where a layer's table and its tar-split data lie; `checksum` is of the table as it lies."""

    table: Stretch
    tar_split: Stretch
    checksum: Digest

    @property
    def described(self) -> int:
        """How many bytes of the blob describe the others."""
        return self.table.size + self.tar_split.size

    @classmethod
    def of(cls, layer: Descriptor) -> Self | None:
        """Return what a descriptor says; None for a layer without tar-split data, or any other.

        Raise ImageError for annotations that cannot be true, or that go beyond the bounds.
        """
        said = dict(layer.annotations)
        if layer.compression != "zstd" or not {_CHECKSUM, _TABLE, _TAR_SPLIT} <= said.keys():
            return None
        *table, kind = _numbers(said[_TABLE], 4)
        if kind != _CRFS:
            return None
        tar_split = Stretch(*_numbers(said[_TAR_SPLIT], 3))
        found = cls(Stretch(*table), tar_split, _checksum(said[_CHECKSUM]))
        if not found.table.size or not tar_split.size:
            raise ImageError("its annotations name no bytes")
        if found.table.end > found.tar_split.offset or tar_split.end > layer.size:
            raise ImageError("its annotations name places that its blob does not have")
        if max(found.table.size, tar_split.size) > STORED_MAX:
            raise ImageError(f"its table or its tar-split data are larger than {STORED_MAX} bytes")
        if found.table.plain > TABLE_MAX or tar_split.plain > TAR_SPLIT_MAX:
            raise ImageError("its table or its tar-split data are too large once decompressed")
        return found


def _numbers(text: str, count: int) -> list[int]:
    words = text.split(":", count)
    if len(words) != count or not all(map(_NUMBER.fullmatch, words)):
        raise ImageError(f"its annotations say {text!r:.80} where numbers have to stand")
    return list(map(int, words))


def _checksum(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidReferenceError as exc:
        raise ImageError(f"its annotations name no checksum of its table: {exc.what}") from exc
