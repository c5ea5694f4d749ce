#!/usr/bin/python3
"""The locks of pmxcfs as a FUSE file system: `pmxcfs.py MOUNTPOINT SECONDS`, in the foreground.

A folder is a lock.  It answers as the real pmxcfs does (measured on pmxcfs 9.1.6): `mkdir` of a
lock that exists is EEXIST, `utime(path, 0, 0)` of a valid lock is EACCES, and the same of a lock
that was not refreshed for SECONDS (120 in the real one) only removes it.  Nothing else is kept.

Runs with Debian's own Python, for which the package python3-fusepy is installed.
"""

from __future__ import annotations

import errno
import stat
import sys
import time
from typing import Any

import fusepy  # type: ignore[import-not-found] # of the system's Python


class Locks(fusepy.Operations):  # type: ignore[misc] # fusepy has no types
    """The locks below the mount point, by path, with the time of their last refresh."""

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        self._refreshed: dict[str, float] = {}

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        """Return the attributes of the root or of a lock."""
        if path != "/" and path not in self._refreshed:
            raise fusepy.FuseOSError(errno.ENOENT)
        return {
            "st_mode": stat.S_IFDIR | 0o755,
            "st_nlink": 2,
            "st_mtime": self._refreshed.get(path, 0.0),
        }

    def readdir(self, path: str, fh: Any) -> list[str]:
        """Return the names of the locks."""
        return [".", "..", *(name[1:] for name in self._refreshed)]

    def mkdir(self, path: str, mode: int) -> None:
        """Take a lock."""
        if path in self._refreshed:
            raise fusepy.FuseOSError(errno.EEXIST)
        self._refreshed[path] = time.time()

    def rmdir(self, path: str) -> None:
        """Release a lock."""
        if self._refreshed.pop(path, None) is None:
            raise fusepy.FuseOSError(errno.ENOENT)

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> None:
        """Refresh a lock, or with the time 0 ask for its release."""
        if path not in self._refreshed:
            raise fusepy.FuseOSError(errno.ENOENT)
        if times is not None and times[1] == 0:
            if time.time() - self._refreshed[path] < self._expiry:
                raise fusepy.FuseOSError(errno.EACCES)
            del self._refreshed[path]
        else:
            self._refreshed[path] = time.time()


if __name__ == "__main__":
    fusepy.FUSE(
        Locks(float(sys.argv[2])), sys.argv[1], foreground=True, nothreads=True, entry_timeout=0.0,
        attr_timeout=0.0, negative_timeout=0.0,
    )  # fmt: skip
