"""A test double of /etc/pve/priv/lock: a plain folder in which folders behave as pmxcfs's locks do.

Measured on pmxcfs 9.1.6 with corosync (facts.md): `mkdir` takes a lock; `utime(path, 0, 0)` asks
for the release of a lock, which a lock that is still valid answers with EACCES; a lock expires
120 s after its last refresh, and then the same call only removes it, so that not before the next
`mkdir` somebody holds the lock.  Without quorum nothing can be written.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPIRY = 120.0
"""Seconds after its last refresh at which a lock expires."""


class Pmxcfs:
    """The locks in `folder`; `refusal` is the errno with which writing is answered, 0 for none.

    A folder that exists answers `mkdir` with EEXIST all the same: the kernel looks before it asks.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.refusal = 0
        self.refused_releases = 0
        folder.mkdir(parents=True)
        for name, act in (("mkdir", self._mkdir), ("utime", self._utime), ("rmdir", self._rmdir)):
            monkeypatch.setattr(os, name, self._here(getattr(os, name), act))

    def hold(self, name: str, age: float = 0.0) -> Path:
        """Hold a lock for another node, refreshed `age` seconds ago."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        refreshed = time.time() - age
        os.utime(path, (refreshed, refreshed))
        return path

    def lose_quorum(self) -> None:
        """Answer all writing with EACCES, and show no permission to write (pmxcfs, `getattr`)."""
        self.refusal = errno.EACCES
        self.folder.chmod(0o555)

    def _here(self, real: Callable[..., None], act: Callable[..., None]) -> Callable[..., None]:
        """Return `act` for paths in the folder, and the real function for all others."""

        def call(path: Any, *args: Any, **kwargs: Any) -> None:
            if Path(path).parent != self.folder:
                real(path, *args, **kwargs)
                return
            if self.refusal and not (act == self._mkdir and Path(path).exists()):
                raise OSError(self.refusal, os.strerror(self.refusal), str(path))
            act(real, path, *args, **kwargs)

        return call

    def _mkdir(self, real: Callable[..., None], path: Path, mode: int = 0o777) -> None:
        real(path, mode)

    def _utime(
        self, real: Callable[..., None], path: Path, times: tuple[float, float] | None = None
    ) -> None:
        if times != (0, 0):
            real(path, times)
        elif time.time() - Path(path).stat().st_mtime < EXPIRY:
            self.refused_releases += 1
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        else:
            Path(path).rmdir()

    def _rmdir(self, real: Callable[..., None], path: Path) -> None:
        real(path)
