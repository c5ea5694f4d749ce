"""What `convert.frame_store` promises: a frame is the same, found or made, never damaged."""

from __future__ import annotations

import os
import random
import resource
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import zstandard

from syncd.convert.frame_store import Frame, FrameSizes, FrameStore, FrameTable, engine_size
from syncd.convert.scratch import ScratchSpace
from syncd.errors import LostFrameError, StorageError
from syncd.tar.member import FILE, Member
from tests.templates import put

LARGE = 1000
PLAIN = [b"%d" % nth * 3000 for nth in range(20)]


@pytest.fixture
def spool(tmp_path: Path) -> ScratchSpace:
    """Give a folder to work in."""
    return ScratchSpace(tmp_path)


@pytest.fixture
def earlier(spool: ScratchSpace, tmp_path: Path) -> tuple[Path, FrameTable]:
    """Make a template of level 3: seven bytes of something else, and these frames."""
    with FrameStore(3, spool.new(), ()) as frames:
        made = [frames.make(plain) for plain in PLAIN]
    path = tmp_path / "template"
    path.write_bytes(b"archive" + b"".join(stored for _, stored in made))
    return path, FrameTable(3, 7, tuple(frame for frame, _ in made))


def plain(stored: bytes) -> bytes:
    return zstandard.decompress(stored)


@pytest.mark.parametrize("remembered", [False, True])
def test_put_and_get(spool: ScratchSpace, remembered: bool) -> None:
    """What was put is got by its name, from any thread."""
    with (
        FrameStore(3, spool.new(), () if remembered else None) as frames,
        ThreadPoolExecutor(4) as pool,
    ):
        names = list(pool.map(partial(put, frames), PLAIN))
        assert [plain(frames.get(name)[1]) for name in names] == PLAIN
        assert all(map(frames.has, names))
        assert not frames.has(b"another")


def test_equal_bytes_are_one_frame(spool: ScratchSpace) -> None:
    """The same plain bytes are compressed once, in a conversion that is remembered."""
    with spool.new() as scratch, FrameStore(3, scratch, ()) as frames:
        names = {put(frames, b"x" * at, b"x" * (5000 - at)) for at in range(5)}
        assert len(names) == 1
        assert os.fstat(scratch.file.fileno()).st_size == frames.get(*names)[0].size


def test_found_is_made(spool: ScratchSpace, earlier: tuple[Path, FrameTable]) -> None:
    """A frame found in an earlier template is byte for byte the one that would be made."""
    with spool.new() as scratch, FrameStore(3, scratch, [earlier]) as found:
        with FrameStore(3, spool.new(), ()) as made:
            for content in PLAIN:
                assert found.make(content) == made.make(content)
                assert found.get(put(found, content)) == made.make(content)
        assert os.fstat(scratch.file.fileno()).st_size == 0


def test_other_levels_are_not_looked_at(
    spool: ScratchSpace, earlier: tuple[Path, FrameTable]
) -> None:
    """A frame of another level would be other bytes, so it is made."""
    with FrameStore(4, spool.new(), [earlier]) as frames:
        assert not frames.has(earlier[1].frames[0].name)


def test_damaged_template(spool: ScratchSpace, earlier: tuple[Path, FrameTable]) -> None:
    """A frame that was damaged in its template is known to be lost, and then made anew."""
    path, table = earlier
    content = bytearray(path.read_bytes())
    content[7 + 5] ^= 1
    path.write_bytes(content)
    with FrameStore(3, spool.new(), [earlier]) as frames:
        with pytest.raises(LostFrameError):
            frames.get(table.frames[0].name)
        assert not frames.has(table.frames[0].name)
        assert plain(frames.get(put(frames, PLAIN[0]))[1]) == PLAIN[0]
    with FrameStore(3, spool.new(), [earlier]) as frames:
        assert plain(frames.make(PLAIN[0])[1]) == PLAIN[0]


@pytest.mark.parametrize("size", [None, 0, 7, 20])
def test_lost_template(
    size: int | None, spool: ScratchSpace, earlier: tuple[Path, FrameTable]
) -> None:
    """A template that is gone, or was cut, has lost its frames; the others are made."""
    path, table = earlier
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size)
    with FrameStore(3, spool.new(), [earlier]) as frames:
        with pytest.raises(LostFrameError):
            frames.get(table.frames[-1].name)
        assert plain(frames.make(PLAIN[-1])[1]) == PLAIN[-1]


def test_own_disk_fails(tmp_path: Path) -> None:
    """A frame that is lost because this conversion's own disk fails is told as that."""
    scratch = ScratchSpace(tmp_path).new()
    with FrameStore(3, scratch) as frames:
        name = put(frames, PLAIN[0])
        scratch.close()
        with pytest.raises(StorageError, match="scratch file cannot be read: Bad file") as told:
            frames.get(name)
        assert not isinstance(told.value, LostFrameError)


def test_own_frame_damaged(tmp_path: Path) -> None:
    """A frame of this conversion that cannot be decompressed any more is lost."""
    scratch = ScratchSpace(tmp_path).new()
    with FrameStore(3, scratch, []) as frames:
        name = put(frames, PLAIN[0])
        os.pwrite(scratch.file.fileno(), b"damaged", 0)
        with pytest.raises(LostFrameError):
            frames.plain(name)


def test_own_frame_cut(tmp_path: Path) -> None:
    """A frame of this conversion that is shorter than it was is not given out."""
    scratch = ScratchSpace(tmp_path).new()
    with FrameStore(3, scratch) as frames:
        name = put(frames, PLAIN[0])
        os.truncate(scratch.file.fileno(), 5)
        with pytest.raises(LostFrameError):
            frames.get(name)


def test_several_templates(spool: ScratchSpace, earlier: tuple[Path, FrameTable]) -> None:
    """A frame is found in whichever template has it; the first counts."""
    path, table = earlier
    empty = FrameTable(3, 0, ())
    with FrameStore(3, spool.new(), [(path, empty), (path, table), (path, table)]) as frames:
        assert plain(frames.get(table.frames[3].name)[1]) == PLAIN[3]


def test_full_disk(tmp_path: Path) -> None:
    """A disk that does not take a frame is a StorageError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            FrameStore(3, ScratchSpace(tmp_path).new()) as frames,
            pytest.raises(StorageError, match=str(tmp_path)),
        ):
            put(frames, random.Random(1).randbytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_table(tmp_path: Path, earlier: tuple[Path, FrameTable]) -> None:
    """A table is read as it was written."""
    _, table = earlier
    table.write(tmp_path / "table")
    assert FrameTable.read(tmp_path / "table", 1000) == table
    assert FrameTable.read(tmp_path / "table", len(table.frames)) == table
    assert FrameTable.read(tmp_path / "table", len(table.frames) - 1) is None
    FrameTable(3, 0, ()).write(tmp_path / "table")
    assert FrameTable.read(tmp_path / "table", 1000) == FrameTable(3, 0, ())


@pytest.mark.parametrize(
    "content", [b"", b"syncd frames 2\n", b"other frames 2\n" + bytes(11), None]
)
def test_no_table(content: bytes | None, tmp_path: Path) -> None:
    """What is no table is none, and so is a file that is not there."""
    if content is not None:
        (tmp_path / "table").write_bytes(content)
    assert FrameTable.read(tmp_path / "table", 1000) is None


def test_table_of_another_zstd(tmp_path: Path) -> None:
    """Frames that another version of zstd made are not taken for those of this one."""
    FrameTable(3, 0, (Frame(bytes(32), 9, bytes(32)),)).write(tmp_path / "table")
    assert FrameTable.read(tmp_path / "table", 1000, bytes(zstandard.ZSTD_VERSION)) is not None
    assert FrameTable.read(tmp_path / "table", 1000, bytes((1, 6, 0))) is None


def test_cut_table(tmp_path: Path, earlier: tuple[Path, FrameTable]) -> None:
    """A table that was cut is none, or has whole rows only."""
    earlier[1].write(tmp_path / "table")
    content = (tmp_path / "table").read_bytes()
    for size in range(0, len(content), 37):
        (tmp_path / "table").write_bytes(content[:size])
        found = FrameTable.read(tmp_path / "table", 1000)
        assert found is None or found.frames == earlier[1].frames[: len(found.frames)]


@pytest.mark.parametrize(
    ("size", "extents", "large"),
    [
        (LARGE, ((0, LARGE, 512),), True),
        (LARGE - 1, ((0, LARGE - 1, 512),), False),
        (LARGE, (), False),
        (2 * LARGE, ((0, LARGE, 512),), False),
        (2 * LARGE, ((0, LARGE, 512), (LARGE, LARGE, 512 + LARGE)), False),
    ],
)
def test_large(size: int, extents: tuple[tuple[int, int, int], ...], large: bool) -> None:
    """A file is large by its size, when its content is one stretch without a hole."""
    member = Member(b"a", FILE, 0o644, 0, 0, 0, size, extents=extents)
    assert FrameSizes(large=LARGE).is_large(member) is large


@pytest.mark.parametrize("level", range(1, 20))
def test_engine_size(level: int) -> None:
    """An engine takes no more memory than is counted for it, and not a quarter of that."""
    engine = zstandard.ZstdCompressor(level=level, write_checksum=True)
    engine.compress(os.urandom(FrameSizes().largest))
    counted = engine_size(level) - 3 * FrameSizes().largest
    assert counted / 4 < engine.memory_size() <= counted
