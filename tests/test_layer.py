"""What `syncd.layer` promises: a blob becomes exactly the tar its diff_id names, or an error."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from syncd.blobs import Verified
from syncd.errors import ImageError, LimitError, StorageError, VerificationError
from syncd.layer import unpack
from syncd.limits import Allowance, Limits
from syncd.manifest import Descriptor, Layer
from syncd.reference import Digest
from tests.archives import directory, file, tar
from tests.images import Layer as Made
from tests.images import describe, digest, layer_of

PLAIN = tar(directory("d"), file("d/a", os.urandom(300_000)), file("b", b"x" * 3_000_000))
GZIP = gzip.compress(PLAIN, 1)
TAIL = zstandard.compress(PLAIN[700:])
AT = range(0, len(PLAIN), 50_000)
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN)
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"notes"


def take(
    stored: bytes,
    compression: str,
    spool: Path,
    *,
    plain: bytes = PLAIN,
    limits: Limits | None = None,
) -> bytes:
    """Unpack a blob that should hold `plain`, and return what lies in the spool file."""
    limits = limits or Limits()
    media_type = Made(stored, plain, compression).media_type(docker=False)
    descriptor = Descriptor.parse(describe(media_type, stored), "layer")
    read: list[int] = []
    with unpack(
        Verified(io.BytesIO(stored), descriptor),
        Layer(descriptor, Digest.parse(digest(plain))),
        spool,
        limits=limits,
        allowance=Allowance(limits, "unpacked", "the size of all layers"),
        metadata=Allowance(limits, "metadata", "the metadata of all layers"),
        advance=read.append,
    ) as unpacked:
        assert sum(read) == len(stored)
        assert list(spool.iterdir()) == []
        return os.pread(unpacked.fd, len(plain) + 1, 0)


def zstd_frame(*blocks: bytes, window: int = 0x38) -> bytes:
    """Return a zstd frame of whole blocks (RFC 8878, section 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + b"".join(blocks)


def zstd_zeros(size: int, *, last: bool = True) -> bytes:
    """Return an RLE block: at most 128 KiB of zeros in four bytes."""
    return (int(last) | 1 << 1 | size << 3).to_bytes(3, "little") + b"\0"


@pytest.mark.parametrize(
    ("compression", "stored"),
    [
        ("", PLAIN),
        ("gzip", GZIP),
        ("gzip", gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:])),
        (
            "gzip",
            b"".join(
                gzip.compress(PLAIN[at : at + 50_000], 1) for at in range(0, len(PLAIN), 50_000)
            ),
        ),
        ("gzip", gzip.compress(b"") + GZIP + gzip.compress(b"")),
        ("gzip", gzip.compress(PLAIN, 0)),
        ("gzip", GZIP[:3] + b"\x08" + GZIP[4:10] + b"layer.tar\0" + GZIP[10:]),
        ("zstd", ZSTD),
        ("zstd", zstandard.compress(PLAIN[:1000]) + zstandard.compress(PLAIN[1000:])),
        ("zstd", SKIPPABLE + ZSTD + SKIPPABLE),
        ("zstd", zstandard.compress(PLAIN[:1000]) + SKIPPABLE + zstandard.compress(PLAIN[1000:])),
        ("zstd", zstandard.compress(b"") + ZSTD),
        ("zstd", b"".join(zstandard.compress(PLAIN[at : at + 50_000]) for at in AT)),
        ("zstd", b"".join(zstandard.compress(PLAIN[at : at + 1]) for at in range(700)) + TAIL),
    ],
)
def test_compressions(compression: str, stored: bytes, tmp_path: Path) -> None:
    """Plain, gzip of one or many members and zstd of any frames give the same tar."""
    assert take(stored, compression, tmp_path) == PLAIN


@pytest.mark.parametrize(
    ("compression", "stored"),
    [
        ("", b""),
        ("gzip", gzip.compress(b"")),
        ("zstd", zstandard.compress(b"")),
        ("zstd", SKIPPABLE),
    ],
)
def test_empty(compression: str, stored: bytes, tmp_path: Path) -> None:
    """A layer may hold nothing at all."""
    assert take(stored, compression, tmp_path, plain=b"") == b""


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_behind_the_end_marker(compression: str, tmp_path: Path) -> None:
    """What stands behind the end of the archive belongs to the diff_id."""
    plain = PLAIN + b"padding" * 100_000
    right, wrong = layer_of(plain, compression), layer_of(PLAIN + b"other", compression)
    assert take(right.stored, compression, tmp_path, plain=plain) == plain
    with pytest.raises(VerificationError, match="diff_id"):
        take(wrong.stored, compression, tmp_path, plain=plain)


CRC, SIZE = struct.unpack("<II", GZIP[-8:])


@pytest.mark.parametrize(
    ("compression", "stored"),
    [
        ("gzip", b""),
        ("gzip", GZIP[:5]),
        ("gzip", GZIP[:10]),
        ("gzip", GZIP[: len(GZIP) // 2]),
        ("gzip", GZIP[:-9]),
        ("gzip", GZIP[:-8]),
        ("gzip", GZIP[:-1]),
        ("gzip", GZIP + b"\x1f"),
        ("gzip", GZIP + GZIP[:9]),
        ("gzip", GZIP + b"garbage"),
        ("gzip", GZIP[:-8] + struct.pack("<II", CRC ^ 1, SIZE)),
        ("gzip", GZIP[:-8] + struct.pack("<II", CRC, SIZE ^ 1)),
        ("gzip", b"\x1f\x8c" + GZIP[2:]),
        ("gzip", GZIP[:2] + b"\x07" + GZIP[3:]),
        ("gzip", zlib.compress(PLAIN)),
        ("gzip", ZSTD),
        ("gzip", PLAIN),
        ("zstd", ZSTD[:3]),
        ("zstd", ZSTD[: len(ZSTD) // 2]),
        ("zstd", ZSTD[:-1]),
        ("zstd", ZSTD[:-4]),
        ("zstd", ZSTD[:-4] + bytes(4)),
        ("zstd", ZSTD + b"\x28"),
        ("zstd", ZSTD + ZSTD[:9]),
        ("zstd", ZSTD + SKIPPABLE[:-1]),
        ("zstd", ZSTD + b"garbage"),
        ("zstd", GZIP),
        ("zstd", PLAIN),
    ],
)
def test_damaged_stream(compression: str, stored: bytes, tmp_path: Path) -> None:
    """A compressed stream that is cut, altered or followed by anything else is refused."""
    with pytest.raises(ImageError, match=f"layer {digest(stored)}.* {compression}"):
        take(stored, compression, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (PLAIN[: 512 * 3 + 5], "cut short"),
        (b"x" + PLAIN[1:], "checksum"),
        (tar(file("a" * 5000)), r"limits\.path"),
    ],
)
def test_bad_tar(plain: bytes, message: str, tmp_path: Path) -> None:
    """A fault in the tar is told with the layer it is in."""
    with pytest.raises(ImageError, match=f"layer sha256:.*{message}"):
        take(plain, "", tmp_path, plain=plain)


def test_bad_blob_is_told_before_its_content(tmp_path: Path) -> None:
    """Of a blob that is not the promised one, its digest is the fault, not what it holds."""
    descriptor = Descriptor.parse(
        describe("application/vnd.oci.image.layer.v1.tar+gzip", GZIP), "layer"
    )
    damaged = GZIP[:5000] + b"!" + GZIP[5001:]
    with pytest.raises(VerificationError, match="other content"):
        unpack(
            Verified(io.BytesIO(damaged), descriptor),
            Layer(descriptor, Digest.parse(digest(PLAIN))),
            tmp_path,
            limits=Limits(),
            allowance=Allowance(Limits(), "unpacked", "the size of all layers"),
            metadata=Allowance(Limits(), "metadata", "the metadata of all layers"),
            advance=lambda _: None,
        )


BOMB = 1 << 30


@pytest.mark.parametrize(
    ("compression", "stored"),
    [
        ("gzip", gzip.compress(bytes(1 << 20), 9) * (BOMB >> 20)),
        ("zstd", zstd_frame(*[zstd_zeros(128 << 10, last=False)] * (BOMB >> 17), zstd_zeros(0))),
    ],
)
def test_bomb(compression: str, stored: bytes, tmp_path: Path) -> None:
    """A small blob that decompresses without end stops at the bound, in little memory."""
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"limits\.unpacked"):
        take(stored, compression, tmp_path, limits=Limits(unpacked=20 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_window(tmp_path: Path) -> None:
    """A zstd frame that asks for more memory than `zstd -d` gives is refused."""
    with pytest.raises(ImageError, match="zstd"):
        take(zstd_frame(zstd_zeros(1024), window=21 << 3), "zstd", tmp_path, plain=bytes(1024))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk(tmp_path: Path) -> None:
    """A disk that takes no more is a StorageError that says where to make room."""
    with largest_file(1 << 20), pytest.raises(StorageError, match=str(tmp_path)):
        take(GZIP, "gzip", tmp_path)


def test_no_spool(tmp_path: Path) -> None:
    """A spool folder that is not there is a StorageError that names it."""
    with pytest.raises(StorageError, match=str(tmp_path / "none")):
        take(GZIP, "gzip", tmp_path / "none")
