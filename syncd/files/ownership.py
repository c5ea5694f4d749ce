"""The owner of the files of the state: the user of the service, even where root creates them.

Root's commands (`syncd sync`, `syncd create`) work on the state of a service that runs as a user
of its own.  The service could neither write nor lock a file that belongs to root.  So a file or
folder that root creates gets the owner of the folder that it is in, at once.  SQLite does the same
with the files beside a database (`robustFchown` in its os_unix.c).  These functions change no
owner for any other user, nor the owner of a file that existed before.

The owner of the folder could put a symlink where root writes next.  So no file is ever opened for
writing through a symlink.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def hand_over(created: Path | int, folder: Path) -> None:
    """Give what root just created in `folder` to the owner of `folder`.

    `created` is a path or a file descriptor.  A file system that has no owners, and a root
    without the capability to change an owner, are no errors.  Raise OSError when `folder` or
    `created` cannot be accessed.
    """
    if os.geteuid():
        return
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    with suppress(PermissionError):
        if isinstance(created, int):
            os.fchown(created, owner.st_uid, owner.st_gid)
        else:
            os.chown(created, owner.st_uid, owner.st_gid, follow_symlinks=False)


def open_own(path: str | Path, flags: int) -> int:
    """Open a file for writing and create it if it is missing; return its descriptor.

    The function can be the `opener` of `open`.  Raise OSError, also when `path` is a symlink.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    hand_over(descriptor, Path(path).parent)
    return descriptor


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old content or the new content, never a part.

    The content is not flushed to the disk.  Raise OSError.
    """
    descriptor, hidden = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            hand_over(descriptor, path.parent)
            os.fchmod(descriptor, 0o644)
            file.write(content)
        Path(hidden).replace(path)
    except OSError:
        Path(hidden).unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Ensure that `folder` and its parents exist.

    Each folder that root creates gets the owner of its parent.  Raise OSError when a folder
    cannot be created.
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
