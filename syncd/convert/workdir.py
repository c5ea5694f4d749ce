"""A folder for each conversion, removed afterwards even if the process died.

A conversion holds the lock of its folder, and the kernel releases the lock when the process ends,
however it ends (flock(2)).  So a folder whose lock is free was left by a conversion that died.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from syncd.errors import StorageError
from syncd.files import hand_over, make_folder


@contextmanager
def conversion_folder(parent: Path) -> Iterator[Path]:
    """Give a folder below `parent` for one conversion, and remove it afterwards."""
    try:
        make_folder(parent)
        remove_abandoned(parent)
        with ExitStack() as stack:
            with _locked(parent):
                folder = Path(tempfile.mkdtemp(prefix="job-", dir=parent))
                hand_over(folder, parent)
                stack.enter_context(_locked(folder))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as exc:
        raise _unusable(parent, exc) from exc


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of conversions whose process died: their lock is free.

    Raise StorageError when `parent` is no folder, or cannot be read.
    """
    if not parent.exists():
        return
    try:
        with _locked(parent):
            for folder in parent.glob("job-*"):
                with suppress(BlockingIOError, FileNotFoundError), _locked(folder, fcntl.LOCK_NB):
                    shutil.rmtree(folder, ignore_errors=True)
    except OSError as exc:
        raise _unusable(parent, exc) from exc


def _unusable(parent: Path, exc: OSError) -> StorageError:
    return StorageError(
        f"the scratch folder {parent} cannot be used: {exc.strerror}",
        "check its permissions and free space",
    )


@contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """Hold a folder's lock; it goes when the process does, however it ends (flock(2))."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(opened)
