"""What `syncd.digesting` promises: the digests of SHA-256, taken while somebody else works."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.digesting import Digester, Follower
from syncd.errors import StorageError

NOISE = os.urandom(9 << 20)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Whatever happens, the threads end."""
    yield
    assert not [one for one in threading.enumerate() if one.name.startswith("digest")]


@pytest.mark.parametrize("pieces", [[], [b""], [b"a"], [b"a", b"bc", b"", NOISE, b"d"]])
def test_pieces(pieces: list[bytes]) -> None:
    """The digest is that of all pieces, in their order."""
    with Digester() as digester:
        for piece in pieces:
            digester.update(piece)
        assert digester.digest().encoded == hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.mark.parametrize("start", [0, 5])
def test_growing_file(start: int, tmp_path: Path) -> None:
    """A file is digested from where it began to grow, as far as it has grown."""
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"front")
        end = file.seek(start)
        with Follower(file.fileno(), start) as follower:
            for at in range(0, len(NOISE), 700_000):
                end += file.write(NOISE[at : at + 700_000])
                if follower.is_behind(end):
                    follower.follow(end)
            assert follower.digest(end).encoded == hashlib.sha256(NOISE).hexdigest()


def test_seldom_behind(tmp_path: Path) -> None:
    """A thread is woken for some MiB, not for every write, and is told of a place only once."""
    with (tmp_path / "file").open("w+b") as file, Follower(file.fileno(), 0) as follower:
        assert not follower.is_behind(1 << 20)
        assert follower.is_behind(8 << 20)
        file.truncate(8 << 20)
        follower.follow(8 << 20)
        assert not follower.is_behind(9 << 20)


def test_lost_end(tmp_path: Path) -> None:
    """A file that is shorter than it was said to be has no digest."""
    with (
        (tmp_path / "file").open("w+b", buffering=0) as file,
        Follower(file.fileno(), 0) as follower,
    ):
        file.write(b"abc")
        with pytest.raises(StorageError, match="not there any more"):
            follower.digest(4)


def test_unreadable(tmp_path: Path) -> None:
    """A file that cannot be read is a StorageError, not a digest."""
    with (tmp_path / "file").open("wb") as file, Follower(file.fileno(), 0) as follower:
        file.write(b"abc")
        with pytest.raises(StorageError, match="cannot be read: Bad file descriptor"):
            follower.digest(3)
