"""What `convert.scratch` promises: what grows has no name, and what is kept is whole."""

from __future__ import annotations

import errno
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncd.convert.layer_record import LayerRecord
from syncd.convert.scratch import ScratchSpace
from syncd.errors import StorageError
from syncd.oci.reference import Digest
from syncd.tar.member import FILE, Member

DIFF_ID = Digest.of(b"a layer")
RECORD = LayerRecord(
    [Member(b"a", FILE, 0o644, 0, 0, 0, size=5, extents=((0, 5, 0),))], 1536, 30, 9, 9
)


@pytest.fixture
def spool(tmp_path: Path) -> ScratchSpace:
    """Give a spool that keeps layers."""
    (tmp_path / "spool").mkdir()
    return ScratchSpace(tmp_path / "spool", tmp_path / "kept")


def test_what_grows_has_no_name(spool: ScratchSpace) -> None:
    """A scratch file shows in no folder, and takes what is added to it, byte behind byte."""
    with spool.new() as scratch:
        assert [scratch.append(text) for text in (b"one", b"", b"three")] == [0, 3, 3]
        assert os.pread(scratch.file.fileno(), 99, 0) == b"onethree"
        assert list(spool.folder.iterdir()) == []


def test_from_several_threads(spool: ScratchSpace) -> None:
    """What several threads add at a time lies where each was told."""
    texts = [b"%04d" % nth * (nth % 50) for nth in range(400)]
    with spool.new() as scratch, ThreadPoolExecutor(8) as pool:
        places = list(pool.map(scratch.append, texts))
        for place, text in zip(places, texts, strict=True):
            assert os.pread(scratch.file.fileno(), len(text), place) == text


def test_kept(spool: ScratchSpace, tmp_path: Path) -> None:
    """A layer that is kept is found by its diff_id, also by another spool; no other one is."""
    with spool.new() as scratch:
        scratch.append(b"hello")
        spool.keep(DIFF_ID, scratch, RECORD)
        spool.keep(DIFF_ID, scratch, RECORD)
    found = ScratchSpace(tmp_path / "elsewhere", tmp_path / "kept").find(DIFF_ID)
    assert found is not None
    with found[0] as file:
        assert found[1] == RECORD
        assert os.pread(file.fileno(), 5, 0) == b"hello"
    assert spool.find(Digest.of(b"another layer")) is None
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_bad_ones_are_dropped(spool: ScratchSpace, tmp_path: Path) -> None:
    """A kept layer that has gone bad is as if it had never been kept."""
    with spool.new() as scratch:
        scratch.append(b"hello")
        spool.keep(DIFF_ID, scratch, RECORD)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"hello", b"hallo"))
    assert spool.find(DIFF_ID) is None
    assert not kept.exists()


def test_bad_ones_that_stay(
    spool: ScratchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad one that cannot be dropped, in a folder that is read-only, is passed over."""
    with spool.new() as scratch:
        spool.keep(DIFF_ID, scratch, RECORD)
    (kept,) = (tmp_path / "kept").iterdir()
    os.truncate(kept, 9)

    def refusing(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refusing)
    assert spool.find(DIFF_ID) is None


def test_last_use(spool: ScratchSpace, tmp_path: Path) -> None:
    """A kept layer that is taken up was used now: the cache's bound goes by that."""
    with spool.new() as scratch:
        spool.keep(DIFF_ID, scratch, RECORD)
    (kept,) = (tmp_path / "kept").iterdir()
    os.utime(kept, (0, 0))
    found = spool.find(DIFF_ID)
    assert found is not None
    found[0].close()
    assert kept.stat().st_mtime > 0


def test_kept_for_the_owner(spool: ScratchSpace, tmp_path: Path) -> None:
    """What is kept belongs to whom the folder belongs, also when root keeps it."""
    (tmp_path / "kept").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "kept", 4321, 8765)
    with spool.new() as scratch:
        spool.keep(DIFF_ID, scratch, RECORD)
    (kept,) = (tmp_path / "kept").iterdir()
    found, folder = kept.stat(), (tmp_path / "kept").stat()
    assert (found.st_uid, found.st_gid) == (folder.st_uid, folder.st_gid)


def test_keeping_is_no_duty(spool: ScratchSpace, tmp_path: Path) -> None:
    """Where a layer cannot be kept, nothing is lost but time."""
    (tmp_path / "kept").touch()
    with spool.new() as scratch:
        scratch.append(b"hello")
        spool.keep(DIFF_ID, scratch, RECORD)
        assert os.pread(scratch.file.fileno(), 5, 0) == b"hello"
    assert spool.find(DIFF_ID) is None


def test_without_nameless_files(
    spool: ScratchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that makes no nameless files is served all the same, and keeps nothing."""
    opened = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    with spool.new() as scratch:
        assert scratch.append(b"hello") == 0
        spool.keep(DIFF_ID, scratch, RECORD)
        assert os.pread(scratch.file.fileno(), 5, 0) == b"hello"
        assert list(spool.folder.iterdir()) == []
    assert spool.find(DIFF_ID) is None


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is a StorageError that names it."""
    with pytest.raises(StorageError, match=str(tmp_path / "none")):
        ScratchSpace(tmp_path / "none").new()


def test_full_disk(spool: ScratchSpace) -> None:
    """A disk that takes no more is a StorageError that says where to make room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with spool.new() as scratch, pytest.raises(StorageError, match=str(spool.folder)):
            scratch.append(bytes(1001))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_closed_files(tmp_path: Path) -> None:
    """What was written to a file that is closed, and was not kept, counts no more."""
    amounts: list[int] = []
    with ScratchSpace(tmp_path, room=amounts.append).new() as file:
        file.append(b"some")
        file.append(b"bytes")
        assert sum(amounts) == 9
    assert sum(amounts) == 0
