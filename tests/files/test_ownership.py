"""Who owns what is created in a folder; as root the tests use a folder of another user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.files.ownership import hand_over, make_folder, open_own, replace_file


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Return a folder that belongs to another user, where these tests may change an owner."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 4321, 8765)
    return tmp_path


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def test_folders(theirs: Path) -> None:
    """Each folder that is created belongs to the owner of the folder above."""
    make_folder(theirs / "a" / "b")
    assert owner(theirs / "a") == owner(theirs / "a" / "b") == owner(theirs)


def test_folder_that_is_there(theirs: Path) -> None:
    """A folder that exists keeps its owner."""
    (theirs / "there").mkdir()
    before = owner(theirs / "there")
    make_folder(theirs / "there")
    assert owner(theirs / "there") == before


def test_file_in_the_way(theirs: Path) -> None:
    """A file where the folder should be is an error, and stays."""
    (theirs / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(theirs / "file")
    assert (theirs / "file").is_file()


def test_open_file(theirs: Path) -> None:
    """An open file is given to the owner of the folder."""
    with (theirs / "file").open("wb") as file:
        hand_over(file.fileno(), theirs)
    assert owner(theirs / "file") == owner(theirs)


def test_symlink(theirs: Path) -> None:
    """A symlink itself changes its owner, never the file that the symlink names."""
    target = theirs / "target"
    target.touch()
    before = owner(target)
    (theirs / "link").symlink_to(target)
    hand_over(theirs / "link", theirs)
    assert owner(theirs / "link") == owner(theirs)
    assert owner(target) == before


def test_own_file(theirs: Path) -> None:
    """A file is created for the owner of the folder, and keeps its content when opened again."""
    for text in (b"one", b"two"):
        opened = open_own(theirs / "file", os.O_RDWR | os.O_APPEND)
        os.write(opened, text)
        os.close(opened)
    assert (theirs / "file").read_bytes() == b"onetwo"
    assert owner(theirs / "file") == owner(theirs)


def test_planted_symlink(theirs: Path) -> None:
    """A symlink in the folder leads no writer elsewhere, and changes the owner of no other file."""
    target = theirs / "target"
    target.write_bytes(b"content")
    before = owner(target)
    (theirs / "file").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        open_own(theirs / "file", os.O_RDWR)
    replace_file(theirs / "file", b"new")
    assert (target.read_bytes(), owner(target)) == (b"content", before)
    assert (theirs / "file").read_bytes() == b"new"


def test_replaced_file(theirs: Path) -> None:
    """A replaced file is new and readable, belongs to the owner of the folder, and is alone."""
    (theirs / "file").write_bytes(b"old")
    with (theirs / "file").open("rb") as old:
        replace_file(theirs / "file", b"new")
        assert old.read() == b"old"
    assert (theirs / "file").read_bytes() == b"new"
    assert owner(theirs / "file") == owner(theirs)
    assert (theirs / "file").stat().st_mode & 0o777 == 0o644
    assert len(list(theirs.iterdir())) == 1


def test_failed_replacement(theirs: Path) -> None:
    """A file that cannot be replaced stays, and nothing is left beside it."""
    (theirs / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(theirs / "file", b"new")
    assert [entry.name for entry in theirs.iterdir()] == ["file"]
