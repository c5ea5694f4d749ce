"""An uncompressed tar on disk whose members are read where they lie: nothing is extracted."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from syncd.errors import ImageError, LimitError, StorageError
from syncd.limits import Limits
from syncd.oci.manifest import Reader
from syncd.tar import BLOCK, FILE, HARD_LINK, SYMLINK, Parser, is_whole

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
}
_WHOLE = "name a whole tar, as skopeo copy or docker save writes it"


class TarFile:
    """The files of a tar by name; links to files count as files.

    Names may start with `./`; of equal names the last counts, as in every tar.  Safe to use from
    several threads.
    """

    def __init__(self, file: Path, limits: Limits) -> None:
        self.file = file
        self._limits = limits
        try:
            with file.open("rb") as opened:
                self._members = _indexed(opened, file, limits)
        except OSError as exc:
            raise StorageError(f"{file} cannot be read: {exc.strerror}") from exc

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """Return a member's size in bytes; raise ImageError when the tar lacks it."""
        return self._place(name)[1]

    def document(self, name: str) -> bytes:
        """Return a small member's content; raise ImageError when the tar lacks it."""
        place, size = self._place(name)
        self._limits.document.check(size, f"the size of {name} in {self.file}")
        try:
            with self.file.open("rb") as opened:
                return os.pread(opened.fileno(), size, place)
        except OSError as exc:
            raise StorageError(f"{self.file} cannot be read: {exc.strerror}") from exc

    def open(self, name: str, offset: int = 0) -> Reader:
        """Open a member's content from `offset` on; raise ImageError when the tar lacks it."""
        place, size = self._place(name)
        try:
            return _Slice(self.file, place + offset, size - offset)
        except OSError as exc:
            raise StorageError(f"{self.file} cannot be read: {exc.strerror}") from exc

    def _place(self, name: str) -> tuple[int, int]:
        try:
            return self._members[name]
        except KeyError:
            raise ImageError(f"{self.file} lacks the member {name}") from None


def compression_of(beginning: bytes) -> str:
    """Return how what begins so is compressed: `gzip`, `zstd`, `xz`, `bzip2`, or not at all."""
    for magic, compression in _MAGIC.items():
        if beginning.startswith(magic):
            return compression
    return ""


class _Slice:
    """A stretch of a file."""

    def __init__(self, file: Path, offset: int, size: int) -> None:
        self._file = file.open("rb", buffering=0)
        self._at = offset
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._file.fileno(), min(size, self._left), self._at)
        self._at += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def _indexed(opened: BinaryIO, file: Path, limits: Limits) -> dict[str, tuple[int, int]]:
    """Return where each file's content lies in the archive, as (offset, size) in bytes."""
    if compression := compression_of(opened.read(8)):
        raise ImageError(
            f"{file} is compressed with {compression}, which an archive of images must not be",
            f"decompress it with {compression} first",
        )
    parser = Parser(limits)
    size = os.fstat(opened.fileno()).st_size
    at = 0
    while at < size:
        block = os.pread(opened.fileno(), BLOCK, at)
        if not block:
            raise ImageError(f"the archive {file} became shorter while it was read")
        with _named(file):
            parser.feed(block)
        at += len(block) + parser.pass_over()
    with _named(file):
        parser.close()
    found: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    for member in parser.members:
        name = _plain(member.name)
        if member.kind in (SYMLINK, HARD_LINK):
            start = posixpath.dirname(name) if member.kind == SYMLINK else ""
            links[name] = posixpath.normpath(posixpath.join(start, _plain(member.target)))
        if member.kind != FILE:
            continue
        if not is_whole(member):
            raise ImageError(f"{file} holds a sparse file, which an archive has no use for")
        place = member.extents[0][2] if member.extents else 0
        if place + member.size > size:
            raise ImageError(f"the archive {file} is cut short")
        found[name] = (place, member.size)
    linked = {name: found[target] for name, target in links.items() if target in found}
    return linked | found


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Name the file in what the parser of tars, which knows none, raises of it."""
    try:
        yield
    except LimitError:
        raise
    except ImageError as exc:
        raise ImageError(f"{file}: {exc.what}", _WHOLE) from exc


def _plain(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace").removeprefix("./").lstrip("/")
