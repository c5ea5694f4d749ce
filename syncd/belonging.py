"""Whose the files of the state are: the service's, whoever makes them.

Root's own commands (`syncd sync`, `syncd create`) work on the state of a service that has a user
of its own.  What root would make there for itself, the service could not write or lock later: so
what root makes belongs to the owner of the folder it is in, from the moment it is there.  SQLite
does the same with the files beside a database (`robustFchown` in its os_unix.c).  For everybody
else nothing is done here, and nothing that is there already changes hands.

Such an owner could lay a symlink where root writes next.  So what is opened for writing here is
never opened through one.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def hand_over(made: Path | int, folder: Path) -> None:
    """Ensure that what root just made in `folder`, a path or an open file, is its owner's.

    A file system or a root without capabilities that refuses is left as it is.  Raise OSError
    when the folder or the file cannot be looked at.
    """
    if os.geteuid():
        return
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    with suppress(PermissionError):
        if isinstance(made, int):
            os.fchown(made, owner.st_uid, owner.st_gid)
        else:
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)


def open_own(path: str | Path, flags: int) -> int:
    """Open a file for writing, made if it is missing; return its descriptor, as an opener does.

    Raise OSError, for a symlink too.
    """
    opened = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    hand_over(opened, Path(path).parent)
    return opened


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old or the new one, never a part.

    Raise OSError.
    """
    opened, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(opened, "wb") as file:
            hand_over(opened, path.parent)
            os.fchmod(opened, 0o644)
            file.write(content)
        Path(beside).replace(path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Ensure that `folder` is there; each one made on the way belongs to its parent's owner.

    Raise OSError when it cannot be made.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        hand_over(folder, folder.parent)
