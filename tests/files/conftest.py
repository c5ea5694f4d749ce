"""What the tests of `files` share: a record of the system calls that make a file durable.

A flush that is left out changes no byte that a test could read; only a power cut would show it.
So the calls are recorded while they are carried out, and tests compare the whole record.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the record of flushes and namings, in order; paths are relative to `tmp_path`.

    `fsync PATH SIZE` tells how many bytes of a regular file had been written when it was flushed;
    `link OLD NEW`, `rename OLD NEW` and `replace OLD NEW` stand for namings that succeeded.
    """
    record: list[str] = []

    def relative(path: str | os.PathLike[str]) -> str:
        return str(Path(path).relative_to(tmp_path))

    def flush(name: str, real: Callable[[int], None]) -> None:
        def call(descriptor: int) -> None:
            path = relative(Path(f"/proc/self/fd/{descriptor}").readlink())
            state = os.fstat(descriptor)
            size = f" {state.st_size}" if stat.S_ISREG(state.st_mode) else ""
            record.append(f"{name} {path}{size}")
            real(descriptor)

        monkeypatch.setattr(os, name, call)

    def naming(name: str, real: Callable[..., None]) -> None:
        def call(old: str | os.PathLike[str], new: str | os.PathLike[str], **options: Any) -> None:
            real(old, new, **options)
            record.append(f"{name} {relative(old)} {relative(new)}")

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync"):
        flush(name, getattr(os, name))
    for name in ("link", "rename", "replace"):
        naming(name, getattr(os, name))
    return record
