"""What `atomic_write` promises: a file gets its name when it is whole and on the disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.errors import StorageError
from syncd.files.atomic import atomic_write

CHUNK = os.urandom(1 << 20)


def write(output: Path, chunks: int, then: Callable[[], object] = lambda: None) -> None:
    """Write so many MiB, and do something before the end."""
    with atomic_write(output) as file:
        for _ in range(chunks):
            file.write(CHUNK)
        then()


def test_whole_or_not_at_all(tmp_path: Path, calls: list[str]) -> None:
    """The name appears once all is written and flushed; until then the old file stays."""
    output = tmp_path / "template"
    output.write_bytes(b"old")
    with atomic_write(output) as file:
        file.write(b"new")
        file.seek(0)
        file.write(b"N")
        file.seek(0, os.SEEK_END)
        file.write(b"!")  # still in the buffer when the block ends
        assert output.read_bytes() == b"old"
        assert calls == []
    assert output.read_bytes() == b"New!"
    hidden = f".template.{os.getpid()}.part"
    assert calls == [f"fsync {hidden} 4", f"replace {hidden} template"]
    assert list(tmp_path.iterdir()) == [output]


def test_flushed_on_the_way(tmp_path: Path, calls: list[str]) -> None:
    """A large file goes to the disk while it is written."""
    write(tmp_path / "template", 40, then=lambda: calls.append("written"))
    hidden = f".template.{os.getpid()}.part"
    assert any(f"fdatasync {hidden}" in call for call in calls[: calls.index("written")])
    assert calls[-2:] == [f"fsync {hidden} {40 << 20}", f"replace {hidden} template"]
    assert (tmp_path / "template").read_bytes() == CHUNK * 40


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "folder"])
def test_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A name that something else than a file has is refused, and that stays as it is."""
    output = tmp_path / "template"
    make(output)
    before = output.stat().st_ino
    with pytest.raises(StorageError, match="is there already and is no file"):
        write(output, 1)
    assert output.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [output]


def test_failure(tmp_path: Path) -> None:
    """Where something fails, nothing is left, and what stood there stays."""
    (tmp_path / "template").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "template", 20, then=lambda: 1 // 0)
    assert [file.name for file in tmp_path.iterdir()] == ["template"]
    assert (tmp_path / "template").read_bytes() == b"old"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flush")]


@pytest.mark.parametrize("chunks", [9, 40])
def test_failed_flush(chunks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's fault that only a flush in the background met is told."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StorageError, match="template cannot be written: Input/output error"):
        write(tmp_path / "template", chunks)
    assert list(tmp_path.iterdir()) == []
