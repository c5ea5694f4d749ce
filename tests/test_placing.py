"""What `placing` promises about a folder, whatever was in it and whatever fails."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from syncd.errors import StorageError
from syncd.placing import place

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


def test_hard_link(file: Path, folder: Path) -> None:
    """On one file system nothing is copied."""
    place(file, folder, NAME)
    assert (folder / NAME).samefile(file)


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
    place(file, folder, NAME)
    assert [entry.name for entry in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == CONTENT
    assert not (folder / NAME).samefile(file)


def test_again(file: Path, folder: Path) -> None:
    """A second time changes nothing."""
    place(file, folder, NAME)
    before = (folder / NAME).stat()
    place(file, folder, NAME)
    assert (folder / NAME).stat() == before


@pytest.mark.parametrize("linkable", [True, False])
def test_never_overwrites(
    file: Path, folder: Path, refuse: Callable[[str, int], None], linkable: bool
) -> None:
    """Another file of the same name stays as it is, and is an error."""
    (folder / NAME).write_bytes(b"other")
    if not linkable:
        refuse("link", errno.EXDEV)
    with pytest.raises(StorageError, match="never overwrites"):
        place(file, folder, NAME)
    assert (folder / NAME).read_bytes() == b"other"
    assert [entry.name for entry in folder.iterdir()] == [NAME]


def test_left_by_a_crash(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """What an earlier attempt left half-written is made use of, not kept."""
    refuse("link", errno.EXDEV)
    (folder / f".{NAME}.part").write_bytes(b"x" * 20_000)
    place(file, folder, NAME)
    assert (folder / NAME).read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == [NAME]


def test_failure(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """A disk that is full leaves the folder as it was."""
    refuse("link", errno.EXDEV)
    refuse("copy_file_range", errno.ENOSPC)
    with pytest.raises(StorageError, match="No space left"):
        place(file, folder, NAME)
    assert list(folder.iterdir()) == []


def test_missing_folder(file: Path, tmp_path: Path) -> None:
    """A folder that is not there is an error, and is not made: its storage may not be mounted."""
    with pytest.raises(StorageError, match="No such file"):
        place(file, tmp_path / "absent", NAME)
    assert not (tmp_path / "absent").exists()


def test_longest_name(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """A name as long as a file system takes leaves room for the hidden one."""
    refuse("link", errno.EXDEV)
    name = "n" * 247 + ".tar.zst"
    place(file, folder, name)
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_writers_at_a_time(file: Path, folder: Path, refuse: Callable[[str, int], None]) -> None:
    """Of several writers of one name each finds it there, whole."""
    refuse("link", errno.EXDEV)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            place(file, folder, NAME)
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
