"""The files of a first configuration: secrets, the cluster's CA, a drop-in, the configuration.

Each appears whole or not at all, and the configuration comes last, so it never names a file that is
not there.  A secret that exists stays, unless a new one was given.  A configuration that somebody
wrote is replaced only where that is asked for; the one of the package or of `make install`, as long
as nobody changed it, always.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from syncd.config import example_text
from syncd.errors import RequestError, StorageError
from syncd.files import atomic_write

_SECRET = 0o600
_READABLE = 0o644
_PATIENCE = 10.0  # seconds in which dpkg-query answers


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be written; with `keep`, one that exists stays as it is."""

    path: Path
    content: str = field(repr=False)
    mode: int = _READABLE
    keep: bool = False


def secret_file(path: Path, content: str = "") -> NewFile:
    """Return a secret's file, for its user alone; without content a random one, made once."""
    made = content or secrets.token_urlsafe(32)
    return NewFile(path, f"{made}\n", _SECRET, keep=not content)


def require_replaceable(path: Path, *, force: bool) -> None:
    """Raise RequestError where somebody's configuration is in the way, and `force` is not given.

    Raise StorageError where no file can be written.
    """
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(
            f"there is no folder {folder}", f"make it: mkdir -p {shlex.quote(str(folder))}"
        )
    if not os.access(folder, os.W_OK):
        raise StorageError(f"this user may not write {folder}", "be root, or give --config FILE")
    if path.exists() and not force and not _untouched(path):
        raise RequestError(f"{path} is there already, and somebody wrote it", "--force replaces it")


def write(file: NewFile) -> bool:
    """Ensure that a file is there; return whether it was written.

    A file that is replaced keeps its mode and owner.  Raise StorageError.
    """
    path = file.path.resolve()
    before = path.stat() if path.exists() else None
    if before and file.keep:
        return False
    mode = stat.S_IMODE(before.st_mode) if before and file.mode != _SECRET else file.mode
    with atomic_write(path) as output:
        os.fchmod(output.fileno(), mode)
        if before and os.geteuid() == 0:
            os.fchown(output.fileno(), before.st_uid, before.st_gid)
        output.write(file.content.encode())
    return True


def _untouched(path: Path) -> bool:
    """Tell whether a configuration is as the package or `make install` put it there."""
    content = path.read_bytes()
    if content == example_text().encode():
        return True
    try:
        # Each line is a path and the MD5 sum of what the package has for it (dpkg-query(1)).
        told = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Conffiles}", "syncd"],  # noqa: S607 - where PATH has it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return [str(path), digest] in [line.split()[:2] for line in told.splitlines()]
