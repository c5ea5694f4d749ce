"""What `convert.background` promises: digests and reads ahead of time, the same as at once."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator

import pytest

from syncd.convert.background import Digester, Helper, ReadAhead
from syncd.errors import StorageError

NOISE = os.urandom(9 << 20)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Whatever happens, the threads end."""
    yield
    names = ("digest", "helper")
    assert not [one for one in threading.enumerate() if one.name.startswith(names)]


@pytest.fixture(params=["free", "busy", "changing"])
def helper(request: pytest.FixtureRequest) -> Iterator[Helper]:
    """Give a helper whose thread is used always, never, or every other time."""
    answers = iter([True, False] * 1000)
    free = {"free": lambda: True, "busy": lambda: False, "changing": lambda: next(answers)}
    with Helper("helper", free[request.param]) as helper:
        yield helper


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("pieces", [[], [b""], [b"a"], [b"a", b"bc", b"", NOISE, b"d"]])
def test_pieces(pieces: list[bytes], algorithm: str, helper: Helper) -> None:
    """The digest is that of all pieces, in their order."""
    digester = Digester(helper, algorithm)
    for piece in pieces:
        digester.update(piece)
    found = digester.digest()
    assert (found.algorithm, found.encoded) == (
        algorithm,
        hashlib.new(algorithm, b"".join(pieces)).hexdigest(),
    )


@pytest.mark.parametrize("is_free", [False, True])
def test_helper(is_free: bool) -> None:
    """A call is made on the thread when a core is free, else before `run` returns."""
    seen = list[int]()

    def double(number: int) -> int:
        seen.append(threading.get_ident())
        return 2 * number

    with Helper("helper", lambda: is_free) as helper:
        task = helper.run(double, 21)
        if not is_free:
            assert seen == [threading.get_ident()]
        assert task.result() == 42
        assert (seen != [threading.get_ident()]) == is_free
        failed = helper.run(lambda divisor: 1 // divisor, 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failed.result()


class Blob(io.BytesIO):
    """A blob that fails once it was read to some place, and counts how often it was asked."""

    fails_at = len(NOISE) + 1
    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked += 1
        if self.tell() >= self.fails_at:
            raise StorageError("the disk is gone")
        return super().read(size)


def test_ahead(helper: Helper) -> None:
    """The bytes come in their order, in pieces of the agreed size, and then there are none."""
    sizes = list[int]()
    ahead = ReadAhead(Blob(NOISE), 1 << 20, helper, sizes.append)
    pieces = list(iter(ahead.read, b""))
    assert b"".join(pieces) == NOISE
    assert {len(piece) for piece in pieces} == {1 << 20}
    assert ahead.read() == b""
    assert sizes == [*([1 << 20] * 9), 0, 0]
    assert ahead.begin == NOISE[:512]


def test_not_far_ahead() -> None:
    """No more than the next piece is read before somebody asks for it."""
    with Helper("helper") as helper:
        blob = Blob(NOISE)
        ahead = ReadAhead(blob, 1 << 20, helper, lambda _: None)
        assert blob.asked == 0
        ahead.read()
    assert blob.asked == 2


def test_fault_ahead(helper: Helper) -> None:
    """A fault is raised where the bytes are asked for, at the latest when they are needed."""
    blob = Blob(NOISE)
    blob.fails_at = 4 << 20
    with pytest.raises(StorageError, match="the disk is gone"):
        list(iter(ReadAhead(blob, 1 << 20, helper, lambda _: None).read, b""))
    assert blob.tell() == blob.fails_at
