"""Decompresses a layer's blob into its plain tar: gzip, zstd, or no compression.

Opens no file: a function gives the bytes of the blob, and the plain bytes come out in chunks.  A
stream that is cut, damaged or followed by anything else is an ImageError, never a shorter tar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, cast

import zstandard
from isal import igzip_lib

from syncd.convert.zstd_windows import Windows
from syncd.errors import ImageError
from syncd.oci import Descriptor

Chunk = bytes | bytearray | memoryview
Read = Callable[[], bytes]
"""Returns the next bytes of a blob, and no bytes at its end."""

# isal's own stubs call its error an instance.
_GzipError = cast(type[Exception], igzip_lib.IsalError)

ZSTD_WINDOW_MAX = 1 << 27
"""Bytes of a zstd window at most, as the zstd command allows without --long: zstd(1)."""
_CHUNK = 1 << 20  # plain bytes at most
_CHUNK_MIN = 64 << 10  # plain bytes at least, but at the end


def decompressed(read: Read, compression: str, windows: Windows | None = None) -> Iterator[Chunk]:
    """Yield the plain bytes in chunks of bounded size, however well they were compressed.

    `compression` is `gzip`, `zstd`, or empty.  `windows` is shown a zstd stream before it is
    decompressed.  Raise ImageError for a stream that is not valid.
    """
    chunks: Iterator[Chunk]
    if compression == "gzip":
        chunks = _gunzip(read)
    elif compression == "zstd":
        chunks = _unzstd(read, windows or Windows())
    else:
        chunks = iter(read, b"")
    try:
        yield from _gathered(chunks)
    except (_GzipError, zstandard.ZstdError) as exc:
        raise ImageError(f"its {compression} stream is not valid: {exc}") from exc


def _gathered(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Join small chunks: a stream may consist of gzip members of one byte each.

    A view of a part of a chunk keeps the whole chunk in memory, so only the last chunk may be tiny.
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


def _unzstd(read: Read, windows: Windows) -> Iterator[bytes | memoryview]:
    """Decompress every frame of a zstd stream (RFC 8878, section 3).

    The library reports no error when the stream ends within a frame.  So a frame of known content
    is put behind the stream: its content comes out only if the last frame of the stream was whole.
    """
    engine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
    source = cast(IO[bytes], _Sealed(read, windows))
    plain = engine.stream_reader(source, read_across_frames=True)
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
    """A zstd stream, followed by the frame that shows that the stream was whole.

    `windows` sees the bytes of the stream before anybody reads them.
    """

    def __init__(self, read: Read, windows: Windows) -> None:
        self._read = read
        self._windows = windows
        self._seal = _SEAL_FRAME
        self._begun = False

    def read(self, _size: int) -> bytes:
        """Return the next bytes, however many: zstandard takes more or fewer than it asks for."""
        data = self._read()
        if not data:
            if not self._begun:
                raise ImageError("its zstd stream is empty")
            data, self._seal = self._seal, b""
        else:
            self._windows.follow(data)
        self._begun = True
        return data


def check_label(begin: bytes, layer: Descriptor) -> None:
    """Raise ImageError when the first block of a layer's blob contradicts its media type."""
    label = layer.compression
    alike = [content for content, magic, at in _MAGIC if begin[at:].startswith(magic)]
    if alike and label not in alike:
        raise ImageError(
            f"layer {layer.digest} is {alike[0] or 'a plain tar'}, but its media type "
            f"{layer.media_type!r} says {label or 'a plain tar'}",
            "push the image again with a tool that says what it writes",
        )


_MAGIC = (("gzip", b"\x1f\x8b", 0), ("zstd", b"\x28\xb5\x2f\xfd", 0), ("", b"ustar", 257))
"""How a layer of each compression begins, and at which byte.

Sources: RFC 1952, section 2.3; RFC 8878, section 3.1.1; POSIX pax(1).
"""
