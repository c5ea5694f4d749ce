"""What `syncd.beside` promises: digests and reads ahead of time, the same as at once."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncd.beside import Ahead, Digester, Follower, Spare
from syncd.errors import StorageError

NOISE = os.urandom(9 << 20)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Whatever happens, the threads end."""
    yield
    names = ("digest", "spare")
    assert not [one for one in threading.enumerate() if one.name.startswith(names)]


@pytest.fixture(params=["free", "busy", "changing"])
def spare(request: pytest.FixtureRequest) -> Iterator[Spare]:
    """Give a thread that is used always, never, or every other time."""
    answers = iter([True, False] * 1000)
    free = {"free": lambda: True, "busy": lambda: False, "changing": lambda: next(answers)}
    with Spare(free[request.param]) as thread:
        yield thread


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("pieces", [[], [b""], [b"a"], [b"a", b"bc", b"", NOISE, b"d"]])
def test_pieces(pieces: list[bytes], algorithm: str, spare: Spare) -> None:
    """The digest is that of all pieces, in their order."""
    digester = Digester(spare, algorithm)
    for piece in pieces:
        digester.update(piece)
    found = digester.digest()
    assert (found.algorithm, found.encoded) == (
        algorithm,
        hashlib.new(algorithm, b"".join(pieces)).hexdigest(),
    )


@pytest.mark.parametrize("is_free", [False, True])
def test_spare(is_free: bool) -> None:
    """Work goes to the thread when a core is free for it; else it is done where it is asked for."""
    with Spare(lambda: is_free) as thread:
        where = thread.submit(threading.get_ident).result()
        assert (where != threading.get_ident()) == is_free
        with pytest.raises(ZeroDivisionError):
            thread.submit(divmod, 1, 0).result()


class Blob(io.BytesIO):
    """A blob that fails once it was read to some place, and counts how often it was asked."""

    fails_at = len(NOISE) + 1
    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked += 1
        if self.tell() >= self.fails_at:
            raise StorageError("the disk is gone")
        return super().read(size)


def test_ahead(spare: Spare) -> None:
    """The bytes come in their order, in pieces of the agreed size, and then there are none."""
    ahead = Ahead(Blob(NOISE), 1 << 20, spare)
    pieces = list(iter(ahead.read, b""))
    assert b"".join(pieces) == NOISE
    assert {len(piece) for piece in pieces} == {1 << 20}
    assert ahead.read() == b""


def test_not_far_ahead() -> None:
    """No more than the next piece is read before somebody asks for it."""
    with ThreadPoolExecutor(1, "spare") as thread:
        blob = Blob(NOISE)
        ahead = Ahead(blob, 1 << 20, thread)
        assert blob.asked == 0
        ahead.read()
    assert blob.asked == 2


def test_fault_ahead(spare: Spare) -> None:
    """A fault is raised where the bytes are asked for, at the latest when they are needed."""
    blob = Blob(NOISE)
    blob.fails_at = 4 << 20
    with pytest.raises(StorageError, match="the disk is gone"):
        list(iter(Ahead(blob, 1 << 20, spare).read, b""))
    assert blob.tell() == blob.fails_at


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
