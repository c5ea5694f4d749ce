"""A backup of the ledger in one file, and the ledger put back from it.

Copying the ledger's file loses what is still in the log beside it, and may catch a write half done.
Here SQLite itself makes the copy, while others write.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

from syncd.errors import LedgerError, RequestError, StorageError
from syncd.files import hand_over, make_folder
from syncd.sync.database import fault
from syncd.sync.ledger_rows import SCHEMA

# Where the readers of a database lock it: SHARED_FIRST and SHARED_SIZE of SQLite's os.h.  Whoever
# has the file open in WAL mode holds such a lock.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
_BESIDE = ("-wal", "-shm")
_PRIVATE, _READABLE = 0o600, 0o644
_WHOLE = "name a whole file that syncd backup wrote"


def back_up(ledger: Path, file: Path) -> None:
    """Write the whole ledger into one file, which replaces an older file of this name.

    The file is for its user alone.  The folder has to be there: one that is made where a disk is
    not mounted would hold the backup that is missed later.  The ledger may be in use.

    Raise RequestError for what is no name of a file, and for a missing folder; LedgerError when the
    ledger is damaged or missing, StorageError when the file cannot be written.
    """
    if not file.name or str(file) == "-":
        raise RequestError("no file is named for the backup", "name one, not a folder or -")
    if not file.parent.is_dir():
        raise RequestError(
            f"there is no folder {file.parent}",
            f"is its disk mounted? If there is none: mkdir -p {shlex.quote(str(file.parent))}",
        )
    if not ledger.is_file():
        raise LedgerError(f"there is no ledger {ledger}", "check state.directory")
    own = {ledger.with_name(ledger.name + ending) for ending in ("", *_BESIDE)}
    if file.resolve() in {path.resolve() for path in own}:
        raise LedgerError(f"{file} is the ledger itself", "name another file for the backup")
    with _hidden(file, _PRIVATE) as copy:
        try:
            _copy_whole(ledger, copy)
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise StorageError(f"{file} cannot be written: its disk is full") from exc
            raise fault(ledger, exc) from exc
        copy.replace(file)
        _flush(file.parent)


def restore(file: Path, ledger: Path) -> Path | None:
    """Put a backup in the ledger's place; return where the old ledger is now, if there was one.

    Raise LedgerError when the file is no whole ledger, or when a process has the ledger open, and
    StorageError when the disk refuses.
    """
    if not file.is_file():
        raise LedgerError(f"there is no file {file}", _WHOLE)
    with _hidden(ledger, _READABLE) as copy:
        try:
            _copy_whole(file, copy)
        except sqlite3.Error as exc:
            raise LedgerError(f"{file} cannot be put back: {exc}", _WHOLE) from exc
        hand_over(copy, ledger.parent)
        with _alone(ledger):
            old = _set_aside(ledger)
            copy.replace(ledger)
            _flush(ledger.parent)
        return old


def _copy_whole(source: Path, copy: Path) -> None:
    """Copy a ledger as it is at one moment into one file, and flush that.

    Raise sqlite3.Error for a file that is damaged, LedgerError for one that is no ledger of ours.
    """
    uri = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as db, closing(sqlite3.connect(copy)) as target:
        db.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
        (state,) = target.execute("PRAGMA integrity_check(1)").fetchone()
        (version,) = target.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in target.execute("SELECT name FROM sqlite_schema")}
    if state != "ok":
        error = sqlite3.DatabaseError(state.splitlines()[-1])
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    if not {"deliveries", "jobs", "templates"} <= tables:
        raise LedgerError(f"{source} is no ledger", _WHOLE)
    if version > len(SCHEMA):
        raise LedgerError(
            f"{source} is of schema {version}, newer than this syncd knows",
            "install the syncd that wrote it, or a newer one",
        )
    _flush(copy)


@contextmanager
def _alone(ledger: Path) -> Iterator[None]:
    """Keep every other process from the ledger; raise LedgerError if one has it open."""
    try:
        opened = os.open(ledger, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except (BlockingIOError, PermissionError) as exc:  # fcntl(2) allows both
            raise LedgerError(
                f"the ledger {ledger} is in use",
                "stop the daemon (systemctl stop syncd.socket syncd), and let commands end",
            ) from exc
        yield
    finally:
        os.close(opened)


def _set_aside(ledger: Path) -> Path | None:
    """Move the ledger and the files beside it away; return where the ledger is now.

    Beside another ledger, SQLite would take the old log for a part of it.
    """
    names = (f"{ledger.name}.replaced-{number}" for number in count(1))
    old = next(path for name in names if not (path := ledger.with_name(name)).exists())
    for ending in (*_BESIDE, ""):
        with suppress(FileNotFoundError):
            ledger.with_name(f"{ledger.name}{ending}").rename(f"{old}{ending}")
    return old if old.exists() else None


@contextmanager
def _hidden(file: Path, mode: int) -> Iterator[Path]:
    """Give a new hidden file beside `file`, and remove what is left of it; raise StorageError."""
    hidden = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        if file.exists() and not file.is_file():
            raise StorageError(f"{file} is there already and is no file", "name a file to write")
        make_folder(file.parent)
        hidden.unlink(missing_ok=True)
        os.close(os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode))
        yield hidden
    except OSError as exc:
        raise StorageError(
            f"{file} cannot be written: {exc.strerror}", "check its permissions and free space"
        ) from exc
    finally:
        with suppress(OSError):  # it got its name, or could not be made
            hidden.unlink()


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
