"""A layer's blob turned into a plain tar on disk whose members are known.

The tar lands in an anonymous file: it has no name, so nothing half-written is ever visible and
nothing stays behind, not even after a crash.  Whoever gets an `Unpacked` knows that its bytes
have the diff_id which the image's config promises.

The bytes move as whole buffers between C libraries that release the interpreter lock
(decompressor, hash, write); Python looks at headers only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

import zstandard
from isal import igzip_lib

from syncd.errors import ImageError, StorageError, SyncdError, VerificationError
from syncd.limits import Allowance, Limits
from syncd.manifest import Layer, Reader
from syncd.member import Member
from syncd.tar import Parser

# isal's own stubs call its error an instance.
_GzipError = cast(type[Exception], igzip_lib.IsalError)

_READ = 256 << 10
_PLAIN = 1 << 20
_ZSTD_WINDOW_MAX = 1 << 27  # as the zstd command allows without --long: zstd(1)


class Unpacked:
    """One layer's plain tar, open for reading at `fd`, and its members."""

    def __init__(self, file: BinaryIO, members: list[Member]) -> None:
        self._file = file
        self.fd = file.fileno()
        self.members = members

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the tar go."""
        self._file.close()


def unpack(
    blob: Reader,
    layer: Layer,
    spool: Path,
    *,
    limits: Limits,
    allowance: Allowance,
    metadata: Allowance,
    advance: Callable[[int], None],
) -> Unpacked:
    """Decompress `blob` into an anonymous file in the folder `spool`.

    `blob` verifies itself when it is read to its end, which this always does.  `allowance` is used
    up by the plain bytes, `metadata` by what is held of the members.  `advance` is told the bytes
    read from `blob`.  Raise ImageError (and its kinds) for a layer that is not what it
    should be, StorageError for a disk that does not take it, and whatever `blob` raises.
    """
    source = _Counted(blob, advance)
    parser = Parser(limits, metadata)
    hasher = layer.diff_id.hasher()
    with ExitStack() as on_failure:
        file = on_failure.enter_context(_anonymous_file(spool))
        try:
            for chunk in _decompressed(source, layer.descriptor.compression):
                allowance.take(len(chunk))
                hasher.update(chunk)
                parser.feed(chunk)
                _write(file.fileno(), chunk, spool)
            source.drain()
            parser.close()
        except (ImageError, _GzipError, zstandard.ZstdError) as exc:
            if not isinstance(exc, VerificationError):
                source.drain()
            raise _explained(exc, layer) from exc
        if hasher.hexdigest() != layer.diff_id.encoded:
            raise VerificationError(
                f"layer {layer.descriptor.digest} holds a tar of digest "
                f"{layer.diff_id.algorithm}:{hasher.hexdigest()}, not of diff_id {layer.diff_id}",
                "the image is damaged or was built wrongly; build and push it again",
            )
        on_failure.pop_all()
        return Unpacked(file, parser.members)


class _Counted:
    """A reader that tells how far it is."""

    def __init__(self, source: Reader, advance: Callable[[int], None]) -> None:
        self._source = source
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(_READ if size < 0 else size)
        self._advance(len(data))
        return data

    def close(self) -> None:
        self._source.close()

    def drain(self) -> None:
        """Read to the end, so that the blob as a whole is verified."""
        while self.read(_READ):
            pass


def _decompressed(source: _Counted, compression: str) -> Iterator[bytes | memoryview]:
    """Yield the plain bytes in chunks of bounded size, however well they were compressed."""
    if compression == "gzip":
        yield from _gunzip(source)
    elif compression == "zstd":
        yield from _unzstd(source)
    else:
        while chunk := source.read(_PLAIN):
            yield chunk


def _gunzip(source: _Counted) -> Iterator[bytes | memoryview]:
    """Decompress every member of a gzip file (RFC 1952, section 2.2), trailers verified."""
    data = source.read(_READ)
    ended = False
    while data:
        engine = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while data or not engine.needs_input:
            chunk = engine.decompress(data, _PLAIN)
            if chunk:
                yield chunk
            data = source.read(_READ) if engine.needs_input and not engine.eof else b""
            if engine.eof:
                break
        ended = engine.eof
        data = (engine.unused_data or source.read(_READ)) if ended else b""
    if not ended:
        raise ImageError("its gzip stream is cut short")


def _unzstd(source: _Counted) -> Iterator[bytes | memoryview]:
    """Decompress every frame of a zstd stream (RFC 8878, section 3).

    The library ends in silence when the stream does, within a frame too.  So a frame of our own
    follows the stream, and comes out whole only if the last one of the stream did.
    """
    engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    plain = engine.stream_reader(
        cast(IO[bytes], _Sealed(source)), read_size=_READ, read_across_frames=True
    )
    held = b""
    while chunk := plain.read(_PLAIN):
        if len(chunk) < len(_SEAL):
            chunk, held = held + chunk, b""
        yield held
        yield memoryview(chunk)[: -len(_SEAL)]
        held = chunk[-len(_SEAL) :]
    if held != _SEAL:
        raise ImageError("its zstd stream is cut short")


_SEAL = b"the stream before this was whole"
_SEAL_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(_SEAL)


class _Sealed:
    """A zstd stream, and behind its end the frame that shows that it was whole."""

    def __init__(self, source: _Counted) -> None:
        self._source = source
        self._seal = _SEAL_FRAME

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        if not data:
            data, self._seal = self._seal, b""
        return data


def _anonymous_file(folder: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, tempfile.TemporaryFile(dir=folder, buffering=0))
    except OSError as exc:
        raise StorageError(
            f"no spool file can be made in {folder}: {exc.strerror}",
            "check its permissions and free space, and how many files may be open",
        ) from exc


def _write(fd: int, chunk: bytes | memoryview, spool: Path) -> None:
    view = memoryview(chunk)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as exc:
        raise StorageError(
            f"the spool folder {spool} does not take more: {exc.strerror}",
            "make room, or put state.directory on a larger disk",
        ) from exc


def _explained(exc: Exception, layer: Layer) -> SyncdError:
    """Say which layer it was."""
    place = f"layer {layer.descriptor.digest}"
    if isinstance(exc, SyncdError):
        return type(exc)(f"{place}: {exc.what}", exc.hint)
    return ImageError(f"{place} is not valid {layer.descriptor.compression}: {exc}")
