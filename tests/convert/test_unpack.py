"""What `convert.unpack` and `decompress` promise: the very tar its diff_id names, or an error."""

from __future__ import annotations

import gzip
import io
import os
import re
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import zstandard

from syncd.convert.frame_store import THREADS, FrameSizes, FrameStore, Plain
from syncd.convert.scratch import ScratchSpace
from syncd.convert.unpack import Unpacked, UnpackResources, recall, unpack
from syncd.errors import ImageError, LimitError, StorageError, VerificationError
from syncd.limits import Budget, Limits
from syncd.oci.blob_reader import BlobReader
from syncd.oci.manifest import Descriptor, Layer
from syncd.oci.reference import Digest
from tests.archives import block, directory, file, member, symlink, tar
from tests.images import Layer as Made
from tests.images import describe, digest, layer_of
from tests.templates import put

FRAME_MAX, LARGE = FrameSizes().largest, FrameSizes().large
P = ParamSpec("P")
T = TypeVar("T")

NOISE = os.urandom(4 << 20)
CONTENTS = {b"d/": b"", b"d/a": NOISE[:300_000], b"d/b": NOISE[:5000], b"c": b"x" * 3_000_000}
PLAIN = tar(
    directory("d"),
    *(file(name, content) for name, content in CONTENTS.items() if content),
)
GZIP = gzip.compress(PLAIN, 1, mtime=0)
TAIL = zstandard.compress(PLAIN[700:])
AT = range(0, len(PLAIN), 50_000)
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN)
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"notes"


@contextmanager
def unpack_resources(
    folder: Path, limits: Limits | None = None, *, kept: Path | None = None
) -> Iterator[UnpackResources]:
    """Give what layers are unpacked with; the layers are kept below `kept`, unless it is None."""
    scratch = ScratchSpace(folder, kept)
    with (
        FrameStore(1, scratch.new(), None if kept is None else ()) as frames,
        ThreadPoolExecutor(2) as compressing,
    ):
        yield UnpackResources(scratch, frames, compressing, Budget(limits or Limits()))


def contents(unpacked: Unpacked, frames: FrameStore) -> dict[bytes, bytes]:
    """Return the content of each member, from frames or from the layer's file."""
    found = {}
    for one in unpacked.members:
        stretches = [os.pread(unpacked.fd, size, place) for _, size, place in one.extents]
        compressed = [zstandard.decompress(frames.get(name)[1]) for name in one.frames]
        found[one.name] = b"".join(stretches + compressed)
    return found


def take(
    stored: bytes,
    compression: str,
    spool: Path,
    *,
    plain: bytes = PLAIN,
    limits: Limits | None = None,
) -> dict[bytes, bytes]:
    """Unpack a blob that should hold `plain`, and return the contents of its members."""
    limits = limits or Limits()
    media_type = Made(stored, plain, compression).media_type(docker=False)
    descriptor = Descriptor.parse(describe(media_type, stored), "layer")
    read: list[int] = []
    with (
        unpack_resources(spool, limits) as resources,
        unpack(
            BlobReader(descriptor, io.BytesIO(stored)),
            Layer(descriptor, Digest.parse(digest(plain))),
            resources,
            read.append,
        ) as unpacked,
    ):
        assert sum(read) == len(stored)
        assert list(spool.iterdir()) == []
        return contents(unpacked, resources.frames)


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
        ("gzip", gzip.compress(PLAIN[:1000], mtime=0) + gzip.compress(PLAIN[1000:], mtime=0)),
        (
            "gzip",
            b"".join(
                gzip.compress(PLAIN[at : at + 50_000], 1, mtime=0)
                for at in range(0, len(PLAIN), 50_000)
            ),
        ),
        ("gzip", gzip.compress(b"", mtime=0) + GZIP + gzip.compress(b"", mtime=0)),
        ("gzip", gzip.compress(PLAIN, 0, mtime=0)),
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
    """Plain, gzip of one or many members and zstd of any frames give the same contents."""
    assert take(stored, compression, tmp_path) == CONTENTS


@pytest.mark.parametrize(
    ("compression", "stored"),
    [
        ("", b""),
        ("gzip", gzip.compress(b"", mtime=0)),
        ("zstd", zstandard.compress(b"")),
        ("zstd", SKIPPABLE),
    ],
)
def test_empty(compression: str, stored: bytes, tmp_path: Path) -> None:
    """A layer may hold nothing at all."""
    assert take(stored, compression, tmp_path, plain=b"") == {}


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_behind_the_end_marker(compression: str, tmp_path: Path) -> None:
    """What stands behind the end of the archive belongs to the diff_id."""
    plain = PLAIN + b"padding" * 100_000
    right, wrong = layer_of(plain, compression), layer_of(PLAIN + b"other", compression)
    assert take(right.stored, compression, tmp_path, plain=plain) == CONTENTS
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
    ("label", "stored", "content"),
    [
        ("", GZIP, "gzip"),
        ("", ZSTD, "zstd"),
        ("gzip", ZSTD, "zstd"),
        ("gzip", PLAIN, "a plain tar"),
        ("zstd", GZIP, "gzip"),
        ("zstd", PLAIN, "a plain tar"),
    ],
)
def test_wrong_label(label: str, stored: bytes, content: str, tmp_path: Path) -> None:
    """A layer that is something else than its media type says is told as that."""
    says = f"is {content}, but its media type '.*' says {label or 'a plain tar'}$"
    with pytest.raises(ImageError) as told:
        take(stored, label, tmp_path)
    assert re.search(says, told.value.what)
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
    with (
        unpack_resources(tmp_path) as resources,
        pytest.raises(VerificationError, match="other content"),
    ):
        unpack(
            BlobReader(descriptor, io.BytesIO(damaged)),
            Layer(descriptor, Digest.parse(digest(PLAIN))),
            resources,
            lambda _: None,
        )


BOMB = 1 << 30


@pytest.mark.parametrize(
    ("compression", "stored"),
    [
        ("gzip", gzip.compress(bytes(1 << 20), 9, mtime=0) * (BOMB >> 20)),
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


def test_empty_zstd(tmp_path: Path) -> None:
    """A blob of no bytes is no zstd stream, as it is no gzip file."""
    with pytest.raises(ImageError, match="zstd stream is empty"):
        take(b"", "zstd", tmp_path, plain=b"")


def test_impossible_size(tmp_path: Path) -> None:
    """A header that claims a size beyond all bounds takes no memory for it."""
    plain = tar(block(b"a", size=b"\x80" + (1 << 59).to_bytes(11, "big")))
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"limits\.metadata"):
        take(plain, "", tmp_path, plain=plain)
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


@pytest.mark.parametrize("size", [LARGE - 1, 4 << 20])
def test_full_disk(size: int, tmp_path: Path) -> None:
    """A disk that takes no more is a StorageError that says where to make room."""
    made = layer_of(tar(*(file(f"{nth}", NOISE[:size]) for nth in range(40))), "")
    with largest_file(1 << 20), pytest.raises(StorageError, match=str(tmp_path)):
        take(made.stored, "", tmp_path, plain=made.plain)


def test_no_spool(tmp_path: Path) -> None:
    """A scratch folder that is not there is a StorageError that names it."""
    with pytest.raises(StorageError, match=str(tmp_path / "none")):
        take(GZIP, "gzip", tmp_path / "none")


def unpacked_from(made: Made, resources: UnpackResources) -> tuple[Layer, Unpacked]:
    """Unpack a layer that was made for a test."""
    descriptor = Descriptor.parse(describe(made.media_type(docker=False), made.stored), "layer")
    layer = Layer(descriptor, Digest.parse(digest(made.plain)))
    blob = BlobReader(descriptor, io.BytesIO(made.stored))
    return layer, unpack(blob, layer, resources, lambda _: None)


def other(nth: int) -> Layer:
    """Return a layer that somebody else unpacks."""
    described = describe("application/vnd.oci.image.layer.v1.tar", b"%d" % nth)
    return Layer(Descriptor.parse(described, "layer"), Digest.of(b"%d" % nth))


@pytest.mark.parametrize("others", [0, THREADS])
def test_alone_or_not(others: int, tmp_path: Path) -> None:
    """A layer is the same, and as well verified, whether a core is free to help with it or not."""
    with unpack_resources(tmp_path) as resources:
        resources.running.update(map(other, range(others)))
        with unpacked_from(layer_of(PLAIN), resources)[1] as unpacked:
            assert contents(unpacked, resources.frames) == CONTENTS | {b"d/": b""}
        with pytest.raises(VerificationError, match="not of diff_id"):
            unpacked_from(Made(GZIP, PLAIN + bytes(512), "gzip"), resources)
        with pytest.raises(ImageError, match="cut short"):
            unpacked_from(Made(GZIP[:-100], PLAIN, "gzip"), resources)
        assert len(resources.running) == others


class Unhurried(Executor):
    """Does nothing before somebody waits for it, and knows how much waited at most."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def submit(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        executor = self

        class Later(Future[T]):
            def result(self, timeout: float | None = None) -> T:
                executor.waiting -= 1
                return act(*args, **kwargs)

        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return Later()


@pytest.mark.parametrize(("others", "most"), [(0, 8), (1, 4), (3, 2)])
def test_what_waits_is_bounded(others: int, most: int, tmp_path: Path) -> None:
    """A part that waits to be compressed counts as the whole chunk that it holds, in all layers."""
    small = [file(f"{nth}", bytes(60_000)) for nth in range(16)]
    made = layer_of(tar(*(part for _ in range(20) for part in (file("a", NOISE[:LARGE]), *small))))
    with unpack_resources(tmp_path) as resources:
        compressing = Unhurried()
        slow = replace(resources, compressing=compressing, running=set(map(other, range(others))))
        unpacked_from(made, slow)[1].close()
    assert most / 2 <= compressing.most <= most


@pytest.mark.parametrize(
    ("size", "frames"),
    [(0, 0), (LARGE - 1, 0), (LARGE, 1), (FRAME_MAX, 1), (FRAME_MAX + 1, 2), (4 << 20, 2)],
)
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_large_contents(size: int, frames: int, compression: str, tmp_path: Path) -> None:
    """A large file's content is in frames of its own, a small one's in the layer's file."""
    made = layer_of(
        tar(file("a", b"first"), file("b", NOISE[:size]), file("c", b"last")), compression
    )
    with unpack_resources(tmp_path) as resources, unpacked_from(made, resources)[1] as unpacked:
        assert [len(one.frames) for one in unpacked.members] == [0, frames, 0]
        assert contents(unpacked, resources.frames) == {
            b"a": b"first", b"b": NOISE[:size], b"c": b"last",
        }  # fmt: skip


def test_large_file_with_holes(tmp_path: Path) -> None:
    """The content of a sparse file stays out of frames, however large it is."""
    records = {
        "GNU.sparse.map": f"0,{LARGE},{2 * LARGE},{LARGE}",
        "GNU.sparse.size": str(3 * LARGE),
    }
    made = layer_of(tar(file("a", b"first"), file("b", NOISE[: 2 * LARGE], records=records)))
    with unpack_resources(tmp_path) as resources, unpacked_from(made, resources)[1] as unpacked:
        assert not unpacked.members[1].frames
        assert contents(unpacked, resources.frames)[b"b"] == NOISE[: 2 * LARGE]


STRANGE = layer_of(
    tar(
        directory("d", mtime=-1_500_000_000, uid=1 << 40),
        file(b"d/caf\xe9", NOISE[:5000], xattrs={"user.note": b"\0\xff"}, mode=0o4755),
        file("large", NOISE),
        file("sparse", b"x" * 512, records={"GNU.sparse.map": "0,512", "GNU.sparse.size": "9999"}),
        symlink("link", b"\xff" * 200),
        member("null", b"3", device=(1, 3)),
    )
)


def test_kept_layer(tmp_path: Path) -> None:
    """A layer that was kept is what it was when it was unpacked, and uses up as much."""
    with unpack_resources(tmp_path, kept=tmp_path / "kept") as resources:
        layer, first = unpacked_from(STRANGE, resources)
        with first, unpack_resources(tmp_path, kept=tmp_path / "kept") as later:
            assert recall(layer, later) is None  # its frames are not here
            put(later.frames, NOISE[:FRAME_MAX])
            put(later.frames, NOISE[FRAME_MAX:])
            second = recall(layer, later)
            assert second is not None
            with second:
                assert second.members == first.members
                assert contents(second, later.frames) == contents(first, resources.frames)
            assert (
                later.budget.unpacked.used == resources.budget.unpacked.used == len(STRANGE.plain)
            )
            assert later.budget.metadata.used == resources.budget.metadata.used


def test_kept_layer_beyond_the_bounds(tmp_path: Path) -> None:
    """A layer that was kept under wider bounds is held to those of now."""
    with unpack_resources(tmp_path, kept=tmp_path / "kept") as resources:
        layer, first = unpacked_from(layer_of(PLAIN), resources)
        first.close()
    with unpack_resources(
        tmp_path, Limits(unpacked=len(PLAIN) - 1), kept=tmp_path / "kept"
    ) as later:
        put(later.frames, NOISE[:300_000])
        for at in (0, FRAME_MAX):
            put(later.frames, CONTENTS[b"c"][at : at + FRAME_MAX])
        with pytest.raises(LimitError, match=r"limits\.unpacked"):
            recall(layer, later)


@pytest.mark.parametrize("bound", ["path", "header"])
def test_kept_layer_under_other_bounds(bound: str, tmp_path: Path) -> None:
    """Bounds that only unpacking can check: a layer kept under wider ones is unpacked again."""
    small = layer_of(tar(file("a", b"content")))
    with unpack_resources(tmp_path, Limits(**{bound: 2000}), kept=tmp_path / "kept") as resources:
        layer, first = unpacked_from(small, resources)
        first.close()
    for now, is_taken in ((1999, False), (2000, True), (2001, True)):
        with unpack_resources(tmp_path, Limits(**{bound: now}), kept=tmp_path / "kept") as later:
            found = recall(layer, later)
            assert (found is not None) == is_taken
            if found is not None:
                found.close()


def test_kept_layers_charge_their_own(tmp_path: Path) -> None:
    """Of two layers that one budget was for, each uses up later what it used up itself."""
    small = [layer_of(tar(file(name, b"content" * 9))) for name in ("a", "bcd")]
    with unpack_resources(tmp_path, kept=tmp_path / "kept") as resources:
        layers = []
        for one in small:
            layer, unpacked = unpacked_from(one, resources)
            unpacked.close()
            layers.append(layer)
    with unpack_resources(tmp_path, kept=tmp_path / "kept") as later:
        used = []
        for layer in layers:
            found = recall(layer, later)
            assert found is not None
            found.close()
            used.append((later.budget.unpacked.used, later.budget.metadata.used))
    assert [one[0] for one in used] == [len(small[0].plain), sum(len(one.plain) for one in small)]
    assert used[-1] == (resources.budget.unpacked.used, resources.budget.metadata.used)


def test_frames_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that has its frames already, from whichever layer, is not compressed again."""
    with unpack_resources(tmp_path, kept=tmp_path / "kept") as resources:
        first = unpacked_from(layer_of(tar(file("a", NOISE))), resources)[1]
        monkeypatch.setattr(FrameStore, "put", None)
        second = unpacked_from(layer_of(tar(file("b", NOISE))), resources)[1]
        with first, second:
            assert contents(second, resources.frames) == {b"b": NOISE}


def test_lost_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that cannot be put aside ends the layer, also when all later ones can."""
    really, refusals = FrameStore.put, iter([True])

    def failing_once(frames: FrameStore, name: bytes, parts: Sequence[Plain]) -> None:
        if next(refusals, False):
            raise StorageError("the scratch folder does not take more")
        really(frames, name, parts)

    monkeypatch.setattr(FrameStore, "put", failing_once)
    with (
        unpack_resources(tmp_path) as resources,
        pytest.raises(StorageError, match="does not take more"),
    ):
        unpacked_from(layer_of(tar(*(file(f"{i}", NOISE[:100_000]) for i in range(9)))), resources)


def test_memory_of_tiny_members(tmp_path: Path) -> None:
    """A large file that comes as gzip members of a byte each takes no more memory than another."""
    plain = tar(file("a", bytes(100_000)))
    stored = b"".join(gzip.compress(plain[at : at + 1], 1, mtime=0) for at in range(len(plain)))
    with unpack_resources(tmp_path) as resources:
        tracemalloc.start()
        unpacked_from(Made(stored, plain, "gzip"), resources)[1].close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


def test_nothing_is_kept_unasked(tmp_path: Path) -> None:
    """Without a place to keep them, layers leave nothing behind."""
    with unpack_resources(tmp_path) as resources:
        layer, unpacked = unpacked_from(STRANGE, resources)
        unpacked.close()
        assert recall(layer, resources) is None
    assert list(tmp_path.iterdir()) == []
