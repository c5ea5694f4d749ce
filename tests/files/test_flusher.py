"""What a file that is flushed while it is written promises about faults of the disk."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from syncd.files.flusher import Flusher
from tests.processes import no_thread, until

LARGE = 20 << 20


def test_fault_of_a_flush_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that the kernel told one flush, and no later one, is not lost."""
    faults = iter([errno.EIO])

    def fdatasync(_: int) -> None:
        for fault in faults:
            raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with (tmp_path / "file").open("wb") as file, Flusher(file.fileno()) as flusher:

        def fails() -> bool:
            flusher.wrote(LARGE)
            return False

        with pytest.raises(OSError, match="Input/output error"):
            until(fails)


def test_thread_that_comes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No flush that nobody waits for meets a fault, which the kernel would tell it alone."""
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    with (tmp_path / "file").open("wb") as file, Flusher(file.fileno()) as flusher:
        with monkeypatch.context() as refused:
            refused.setattr(threading.Thread, "start", no_thread)
            flusher.wrote(LARGE)
        flusher.wrote(LARGE)
        flusher.settle()
    assert flushed == []
