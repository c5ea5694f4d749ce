"""A layer's plain tar out of its blob: gzip, zstd, or neither, to the last byte or not at all.

Pure but for the libraries: bytes come from a function, and go in chunks.  A stream that is cut,
damaged or followed by anything else is an ImageError, never a shorter tar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, cast

import zstandard
from isal import igzip_lib

from syncd.errors import ImageError
from syncd.manifest import Descriptor

Chunk = bytes | bytearray | memoryview
Read = Callable[[], bytes]
"""Returns the next bytes of a blob, some at a time; none at its end."""

# isal's own stubs call its error an instance.
_GzipError = cast(type[Exception], igzip_lib.IsalError)

_CHUNK = 1 << 20  # plain bytes at most
_CHUNK_MIN = 64 << 10  # plain bytes at least, but at the end
_ZSTD_WINDOW_MAX = 1 << 27  # as the zstd command allows without --long: zstd(1)


def decompressed(read: Read, compression: str) -> Iterator[Chunk]:
    """Yield the plain bytes in chunks of bounded size, however well they were compressed.

    `compression` is `gzip`, `zstd`, or empty.  Raise ImageError for a stream that is not valid.
    """
    chunks: Iterator[Chunk]
    if compression == "gzip":
        chunks = _gunzip(read)
    elif compression == "zstd":
        chunks = _unzstd(read)
    else:
        chunks = iter(read, b"")
    try:
        yield from _gathered(chunks)
    except (_GzipError, zstandard.ZstdError) as exc:
        raise ImageError(f"its {compression} stream is not valid: {exc}") from exc


def _gathered(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Put small chunks together: a stream may be made of gzip members of a byte each.

    Whoever holds a part of a chunk holds the whole, so that none but the last may be tiny.
    """
    held = bytearray()
    for chunk in chunks:
        if not held and len(chunk) >= _CHUNK_MIN:
            yield chunk
            continue
        held += chunk
        if len(held) >= _CHUNK_MIN:
            yield held
            held = bytearray()
    yield held


def _gunzip(read: Read) -> Iterator[bytes | memoryview]:
    """Decompress every member of a gzip file (RFC 1952, section 2.2), trailers verified."""
    data = read()
    ended = False
    while data:
        engine = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while data or not engine.needs_input:
            chunk = engine.decompress(data, _CHUNK)
            if chunk:
                yield chunk
            data = read() if engine.needs_input and not engine.eof else b""
            if engine.eof:
                break
        ended = engine.eof
        data = (engine.unused_data or read()) if ended else b""
    if not ended:
        raise ImageError("its gzip stream is cut short")


def _unzstd(read: Read) -> Iterator[bytes | memoryview]:
    """Decompress every frame of a zstd stream (RFC 8878, section 3).

    The library ends in silence when the stream does, within a frame too.  So a frame of our own
    follows the stream, and comes out whole only if the last one of the stream did.
    """
    engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX)
    plain = engine.stream_reader(cast(IO[bytes], _Sealed(read)), read_across_frames=True)
    held = b""
    while chunk := plain.read(_CHUNK):
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

    def __init__(self, read: Read) -> None:
        self._read = read
        self._seal = _SEAL_FRAME
        self._begun = False

    def read(self, _size: int) -> bytes:
        """Return the next bytes: as many as there are, which zstandard takes, too."""
        data = self._read()
        if not data:
            if not self._begun:
                raise ImageError("its zstd stream is empty")
            data, self._seal = self._seal, b""
        self._begun = True
        return data


def check_label(begin: bytes, layer: Descriptor) -> None:
    """Raise ImageError when a layer plainly is something else than its media type says.

    `begin` is how its blob begins, a block of it.
    """
    label = layer.compression
    alike = [content for content, magic, at in _MAGIC if begin[at:].startswith(magic)]
    if alike and label not in alike:
        raise ImageError(
            f"layer {layer.digest} is {alike[0] or 'a plain tar'}, but its media type "
            f"{layer.media_type!r} says {label or 'a plain tar'}",
            "push the image again with a tool that says what it writes",
        )


_MAGIC = (("gzip", b"\x1f\x8b", 0), ("zstd", b"\x28\xb5\x2f\xfd", 0), ("", b"ustar", 257))
"""How what a layer may be begins: RFC 1952, section 2.3; RFC 8878, section 3.1.1; POSIX pax(1)."""
