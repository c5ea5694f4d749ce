"""What `syncd.draft` promises: a file has its name when it is whole and on the disk, not before."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.draft import draft
from syncd.errors import StorageError

CHUNK = os.urandom(1 << 20)


def write(output: Path, chunks: int, then: Callable[[], object] = lambda: None) -> None:
    """Write so many MiB, and do something before the end."""
    with draft(output) as file:
        for _ in range(chunks):
            file.write(CHUNK)
        then()


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which flushes there were, in their order."""
    calls: list[str] = []

    def noting(name: str) -> None:
        real = getattr(os, name)

        def call(fd: int) -> None:
            calls.append(name)
            real(fd)

        monkeypatch.setattr(os, name, call)

    noting("fdatasync")
    noting("fsync")
    return calls


def test_whole_or_not_at_all(tmp_path: Path, flushed: list[str]) -> None:
    """The name appears once all is written and flushed; until then the old file stays."""
    output = tmp_path / "template"
    output.write_bytes(b"old")
    with draft(output) as file:
        file.write(b"new")
        file.seek(0)
        file.write(b"N")
        assert output.read_bytes() == b"old"
        assert flushed == []
    assert output.read_bytes() == b"New"
    assert flushed == ["fsync"]
    assert list(tmp_path.iterdir()) == [output]


def test_flushed_on_the_way(tmp_path: Path, flushed: list[str]) -> None:
    """A large file goes to the disk while it is written."""
    write(tmp_path / "template", 40, then=lambda: flushed.append("written"))
    assert "fdatasync" in flushed[: flushed.index("written")]
    assert flushed[-1] == "fsync"
    assert (tmp_path / "template").read_bytes() == CHUNK * 40


def test_failure(tmp_path: Path) -> None:
    """Where something fails, nothing is left, and what stood there stays."""
    (tmp_path / "template").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "template", 20, then=lambda: 1 // 0)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("template", b"old")]
    assert not [one for one in threading.enumerate() if one.name.startswith("flush")]


@pytest.mark.parametrize("chunks", [9, 40])
def test_failed_flush(chunks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's fault that only a flush in the background met is told."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StorageError, match="template cannot be written: Input/output error"):
        write(tmp_path / "template", chunks)
    assert list(tmp_path.iterdir()) == []
