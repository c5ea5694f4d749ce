"""What `publish_file` promises about a folder, whatever was in it and whatever fails."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from syncd.errors import GrowingFileError, OccupiedNameError, StorageError
from syncd.files.publish import publish_file, remove_part
from tests.processes import no_thread

LARGE = bytes(range(256)) * (20 << 12)
NAME = "image.tar.zst"
CONTENT = b"template " * 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "spool" / "converted"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make a system call fail as on file systems that this machine does not have."""

    def make(call: str, code: int) -> None:
        def refused(*_: object, **__: object) -> NoReturn:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, call, refused)

    return make


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_a_file_of_its_own(file: Path, folder: Path, umask: int) -> None:
    """The published file shares no inode with its source, and is the publisher's, mode 0644."""
    file.chmod(0o600)
    before = os.umask(umask)
    try:
        publish_file(file, folder, NAME)
    finally:
        os.umask(before)
    published = (folder / NAME).stat()
    assert not (folder / NAME).samefile(file)
    assert (published.st_nlink, file.stat().st_nlink) == (1, 1)
    assert stat.S_IMODE(published.st_mode) == 0o644
    assert published.st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes another user's file")
@pytest.mark.parametrize("linkable", [True, False])
def test_the_owner(
    file: Path, folder: Path, refuse: Callable[[str, int], None], linkable: bool
) -> None:
    """Neither the folder's owner nor who planted the hidden file owns what root publishes."""
    os.chown(folder, 12345, 12345)
    planted = folder / f".{NAME}.part"
    planted.write_bytes(b"planted")
    os.chown(planted, 12346, 12346)
    planted.chmod(0o666)
    if not linkable:
        refuse("link", errno.EPERM)
    with planted.open("r+b") as kept:
        publish_file(file, folder, NAME)
        kept.write(b"changed")
    assert (folder / NAME).read_bytes() == CONTENT
    assert (folder / NAME).stat().st_uid == 0


@pytest.mark.parametrize(
    "refused",
    [
        {"link": errno.EXDEV},
        {"link": errno.EPERM, "copy_file_range": errno.EXDEV},
        {"link": errno.EOPNOTSUPP, "copy_file_range": errno.EINVAL},
    ],
)
def test_copy(
    file: Path, folder: Path, refuse: Callable[[str, int], None], refused: dict[str, int]
) -> None:
    """Without hard links the content is copied, and nothing else stays in the folder."""
    for call, code in refused.items():
        refuse(call, code)
    publish_file(file, folder, NAME)
    assert [entry.name for entry in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == CONTENT
    assert not (folder / NAME).samefile(file)


@pytest.mark.parametrize("cloning", [True, False])
def test_durable_copy(
    file: Path,
    folder: Path,
    calls: list[str],
    refuse: Callable[[str, int], None],
    *,
    cloning: bool,
) -> None:
    """The copy is on the disk before it gets its name, and the name's folder afterwards."""
    if not cloning:
        refuse("copy_file_range", errno.EXDEV)
    publish_file(file, folder, NAME)
    assert calls == [
        f"fsync cache/.{NAME}.part {len(CONTENT)}",
        f"link cache/.{NAME}.part cache/{NAME}",
        "fsync cache",
    ]


def test_durable_without_links(
    file: Path, folder: Path, calls: list[str], refuse: Callable[[str, int], None]
) -> None:
    """A copy on a file system without hard links is on the disk before it is renamed."""
    refuse("link", errno.EPERM)
    publish_file(file, folder, NAME)
    assert calls == [
        f"fsync cache/.{NAME}.part {len(CONTENT)}",
        f"rename cache/.{NAME}.part cache/{NAME}",
        "fsync cache",
    ]


def test_durable_again(file: Path, folder: Path, calls: list[str]) -> None:
    """A name that a crash may have kept from the disk is flushed when it is found again."""
    publish_file(file, folder, NAME)
    calls.clear()
    publish_file(file, folder, NAME)
    assert calls == ["fsync cache"]


def test_flushed_on_the_way(
    file: Path, folder: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large copy goes to the disk while it is written, and leaves the page cache then."""
    file.write_bytes(LARGE)
    part = f"cache/.{NAME}.part"

    def leave(descriptor: int, offset: int, size: int, advice: int) -> None:
        written = os.fstat(descriptor).st_size
        calls.append(f"leave {written}")
        assert (offset, size, advice) == (0, 0, os.POSIX_FADV_DONTNEED)

    monkeypatch.setattr(os, "posix_fadvise", leave)
    publish_file(file, folder, NAME)
    assert (folder / NAME).read_bytes() == LARGE
    assert calls[0].startswith(f"fdatasync {part} ")
    assert calls[1].startswith("leave ")
    assert calls[-4:] == [
        f"fsync {part} {len(LARGE)}",
        f"leave {len(LARGE)}",
        f"link {part} cache/{NAME}",
        "fsync cache",
    ]


def test_what_only_helps(
    file: Path, folder: Path, refuse: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a thread to flush with, or a page cache to leave, the file is published, too."""
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    refuse("posix_fadvise", errno.EINVAL)
    file.write_bytes(LARGE)
    publish_file(file, folder, NAME)
    assert (folder / NAME).read_bytes() == LARGE


def test_failed_flush_on_the_way(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's fault that only a flush in the background met is told, and nothing is left."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    file.write_bytes(LARGE)
    with pytest.raises(StorageError, match="Input/output error"):
        publish_file(file, folder, NAME)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("failing", [f".{NAME}.part", "cache"])
def test_failed_flush(
    file: Path,
    folder: Path,
    refuse: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    """A disk's fault at any flush is an error, and content that was not flushed gets no name."""
    refuse("link", errno.EXDEV)
    flush = os.fsync

    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        publish_file(file, folder, NAME)
    assert [entry.name for entry in folder.iterdir()] == ([NAME] if failing == "cache" else [])


def test_planted_symlink(
    file: Path,
    folder: Path,
    refuse: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A symlink in the folder leads no copy elsewhere."""
    refuse("link", errno.EXDEV)
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("the symlink was followed"))
    elsewhere = folder.with_name("elsewhere")
    elsewhere.write_bytes(b"other")
    (folder / f".{NAME}.part").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="symbolic links"):
        publish_file(file, folder, NAME)
    assert elsewhere.read_bytes() == b"other"
    assert not (folder / NAME).exists()


def test_again(file: Path, folder: Path) -> None:
    """A second time changes nothing."""
    publish_file(file, folder, NAME)
    before = (folder / NAME).stat()
    publish_file(file, folder, NAME)
    after = (folder / NAME).stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


@pytest.mark.parametrize("linkable", [True, False])
def test_never_overwrites(
    file: Path, folder: Path, refuse: Callable[[str, int], None], linkable: bool
) -> None:
    """Another file of the same name stays as it is, and is an error."""
    (folder / NAME).write_bytes(b"other")
    if not linkable:
        refuse("link", errno.EXDEV)
    with pytest.raises(StorageError, match="never overwrites"):
        publish_file(file, folder, NAME)
    assert (folder / NAME).read_bytes() == b"other"
    assert [entry.name for entry in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("linkable", [True, False])
def test_a_planted_file(
    file: Path, folder: Path, refuse: Callable[[str, int], None], linkable: bool
) -> None:
    """A file of the right name and size, but with other bytes, is not the same file."""
    planted = b"x" + CONTENT[1:]
    (folder / NAME).write_bytes(planted)
    if not linkable:
        refuse("link", errno.EXDEV)
    with pytest.raises(OccupiedNameError, match=r"other bytes of the same size.*remove it"):
        publish_file(file, folder, NAME)
    assert (folder / NAME).read_bytes() == planted


def test_the_same_bytes(file: Path, folder: Path) -> None:
    """A file of another inode that has the same bytes is the same file, and stays."""
    (folder / NAME).write_bytes(CONTENT)
    before = (folder / NAME).stat().st_ino
    publish_file(file, folder, NAME)
    assert (folder / NAME).stat().st_ino == before


def test_a_planted_symlink_to_the_bytes(file: Path, folder: Path) -> None:
    """A symlink under the name is not the file, wherever it leads."""
    (folder / NAME).symlink_to(file)
    with pytest.raises(StorageError):
        publish_file(file, folder, NAME)


def test_a_growing_file(file: Path, folder: Path) -> None:
    """A file that somebody else still writes is waited for, and counts when it is whole."""
    (folder / NAME).write_bytes(CONTENT[:10])
    waits: list[float] = []

    def write_on(seconds: float) -> None:
        waits.append(seconds)
        (folder / NAME).write_bytes(CONTENT[: len(CONTENT) * len(waits) // 3])

    publish_file(file, folder, NAME, write_on)
    assert len(waits) == 3
    assert (folder / NAME).read_bytes() == CONTENT


def test_a_file_that_grows_for_ever(file: Path, folder: Path) -> None:
    """A file that grows for longer than ten minutes is a passing error, and stays."""
    (folder / NAME).write_bytes(b"")
    waits: list[float] = []

    def write_on(seconds: float) -> None:
        waits.append(seconds)
        with (folder / NAME).open("ab") as growing:
            growing.write(b"x")

    with pytest.raises(GrowingFileError, match="written by somebody else") as failure:
        publish_file(file, folder, NAME, write_on)
    assert failure.value.temporary
    assert 590 <= sum(waits) <= 610


def test_left_by_a_crash(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """A hidden file that an earlier attempt left is removed."""
    refuse("link", errno.EXDEV)
    (folder / f".{NAME}.part").write_bytes(b"x" * 20_000)
    publish_file(file, folder, NAME)
    assert (folder / NAME).read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == [NAME]


def test_failure(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """A disk that is full leaves the folder as it was."""
    refuse("link", errno.EXDEV)
    refuse("copy_file_range", errno.ENOSPC)
    with pytest.raises(StorageError, match="No space left"):
        publish_file(file, folder, NAME)
    assert list(folder.iterdir()) == []


def test_missing_folder(file: Path, tmp_path: Path) -> None:
    """A missing folder is an error, and is not created: its storage may not be mounted."""
    with pytest.raises(StorageError, match="No such file"):
        publish_file(file, tmp_path / "absent", NAME)
    assert not (tmp_path / "absent").exists()


def test_longest_name(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """The longest name that a file system takes has a hidden name, too."""
    refuse("link", errno.EXDEV)
    name = "n" * 247 + ".tar.zst"
    publish_file(file, folder, name)
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_lock_of_another(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """A writer waits while another process holds the hidden file."""
    refuse("link", errno.EXDEV)
    with (folder / f".{NAME}.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = threading.Thread(target=publish_file, args=(file, folder, NAME))
        writer.start()
        time.sleep(0.1)
        assert not (folder / NAME).exists()
    writer.join()
    assert (folder / NAME).read_bytes() == CONTENT


def test_writers_at_a_time(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """Several writers of one name all succeed, and the file is whole."""
    refuse("link", errno.EXDEV)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            publish_file(file, folder, NAME)
        except BaseException as exc:  # noqa: BLE001 - looked at below
            failures.append(exc)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [entry.name for entry in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == CONTENT


def test_a_part_that_outlived_its_publication(tmp_path: Path) -> None:
    """A hidden name that could not be removed is removed once the file is published again."""
    (tmp_path / "made").write_bytes(b"content")
    folder = tmp_path / "storage"
    folder.mkdir()
    publish_file(tmp_path / "made", folder, "name")
    (folder / ".name.part").hardlink_to(folder / "name")
    publish_file(tmp_path / "made", folder, "name")
    assert [file.name for file in folder.iterdir()] == ["name"]


def test_remove_part(tmp_path: Path) -> None:
    """The hidden file of a dead publication goes, by the name that a copy has; no other does."""
    name = "n" * 255
    part = tmp_path / f".{name[:249]}.part"
    part.touch()
    (kept := tmp_path / ".other.part").touch()
    assert remove_part(tmp_path, name)
    assert not remove_part(tmp_path, name)
    assert not remove_part(tmp_path / "missing", name)
    assert list(tmp_path.iterdir()) == [kept]


def test_remove_part_that_is_a_symlink(tmp_path: Path) -> None:
    """What is put there under the hidden name is not followed."""
    (victim := tmp_path / "victim").write_text("kept")
    (tmp_path / ".name.part").symlink_to(victim)
    with pytest.raises(StorageError, match="cannot be removed"):
        remove_part(tmp_path, "name")
    assert victim.read_text() == "kept"


def test_readable_for_everyone(tmp_path: Path) -> None:
    """A published file is readable for everyone, whatever umask made its source."""
    source = tmp_path / "source"
    source.write_bytes(b"template")
    source.chmod(0o600)
    (tmp_path / "storage").mkdir()
    publish_file(source, tmp_path / "storage", "a.tar")
    assert stat.S_IMODE((tmp_path / "storage" / "a.tar").stat().st_mode) == 0o644
