"""One SQLite file: statements, shared transactions, and what its faults mean.

The file is a write-ahead log whose commits are flushed: what was committed survives a power
failure.  A flush may take a second on a busy disk, so writes that wait for the disk together share
one transaction and one flush.  Reads have a connection of their own and wait for no write.  This
module knows nothing of jobs and templates.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

import structlog

from syncd.errors import LedgerError, LedgerUnavailableError, SyncdError
from syncd.files import make_folder

BUSY_TIMEOUT = 30
"""Seconds in which another process that writes is waited for."""
_BUSY_TURN = 250  # milliseconds of one wait while the file is opened
_WAL_MAX = 16 << 20  # bytes that the log beside the file keeps once they are written into the file
_TOLD_MAX = 1000
_LOOK = 1 << 20  # bytes of one read of a file that may be damaged

# The primary result codes of https://www.sqlite.org/rescode.html, what each says of the file, what
# to do about it, and whether the same call may succeed later without anybody acting.
_FAULTS = {
    sqlite3.SQLITE_BUSY: (
        f"is held by another process for longer than {BUSY_TIMEOUT} s",
        "find out which process holds it (fuser)",
        True,
    ),
    sqlite3.SQLITE_FULL: ("cannot grow: its disk is full", "make room; nothing is lost", True),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written now: its disk reports an error",
        "see what the kernel's log says of the disk, if it lasts",
        True,
    ),
    sqlite3.SQLITE_READONLY: (
        "cannot be written: the file or its file system is read-only",
        "check the owner of the file, and how its file system is mounted",
        False,
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "check that the path is a file, and the owner and permissions of its folder",
        False,
    ),
}
_DAMAGED = (
    "is damaged",
    "put a backup back with `syncd restore FILE`; or move the file and those beside it "
    "(-wal, -shm) away and start anew: what is published is found again",
    False,
)
_DAMAGES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAULTS |= dict.fromkeys(_DAMAGES, _DAMAGED)
_OTHER = ("cannot be used", "check the owner and permissions of its folder", False)

_T = TypeVar("_T")

__all__ = ["BUSY_TIMEOUT", "Connection", "Database", "fault"]

log = structlog.stdlib.get_logger()


def fault(path: Path, exc: sqlite3.Error | OSError) -> LedgerError:
    """Return the error that says what a fault of SQLite means for the ledger at `path`.

    A LedgerUnavailableError may pass by itself, any other LedgerError does not.  A file that the
    disk could not read for a moment is malformed for SQLite, too, so the file is looked at again.
    """
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGES and not _is_damaged(path):
        code = sqlite3.SQLITE_IOERR
    what, hint, passing = _FAULTS.get(code, _OTHER)
    error = LedgerUnavailableError if passing else LedgerError
    return error(f"the ledger {path} {what}: {exc}", hint)


def _is_damaged(path: Path) -> bool:
    """Tell whether a file is none of SQLite's, or is damaged; a disk that refuses tells neither."""
    try:
        file = os.open(path, os.O_RDONLY)
        with closing(os.fdopen(file, "rb")):
            for offset in range(0, os.fstat(file).st_size, _LOOK):
                os.pread(file, _LOOK, offset)  # as SQLite reads it
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except OSError:
        return False
    except sqlite3.Error:
        return True


@dataclass(slots=True, eq=False)
class _Write:
    """A write that waits for its transaction; `error` is what came of it."""

    act: Callable[[Connection], object]
    done: bool = False
    error: BaseException | None = None


class Database:
    """An open file.  Safe to use from several threads, and by several processes.

    Every method raises LedgerError, which says what is wrong with the file and what to do.
    """

    def __init__(self, path: Path, schema: tuple[str, ...]) -> None:
        """Open the file, and create it if it is missing; bring it to the newest schema."""
        self._path = path
        self._lock, self._reads = threading.RLock(), threading.Lock()
        self._writing: int | None = None  # the thread that has a transaction open
        self._waiting: deque[_Write] = deque()
        self._told: set[str] = set()
        with self._sound():
            make_folder(path.parent)
            self._db = self._connect()
            try:
                self._open(schema)
                self._reading = self._connect()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Let the file go, once no thread is at it; whoever comes later gets a LedgerError."""
        with self._lock, self._reads:
            self._reading.close()
            self._db.close()

    def _connect(self) -> Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, schema: tuple[str, ...]) -> None:
        """Bring the file to its form, waiting for a process that holds it.

        The waits are short ones in a row, since this is done by the main thread of a process:
        between two of them Python handles a signal that is to end the process.
        """
        until = time.monotonic() + BUSY_TIMEOUT
        self._db.execute(f"PRAGMA busy_timeout = {_BUSY_TURN}")
        while True:
            try:
                with self._sound():
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.execute(f"PRAGMA journal_size_limit = {_WAL_MAX}")
                self._migrate(schema)
                break
            except LedgerUnavailableError as exc:
                held = getattr(exc.__cause__, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not held or time.monotonic() > until:
                    raise
        self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000}")

    def _migrate(self, schema: tuple[str, ...]) -> None:
        with self._transaction() as db:
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(schema):
                raise LedgerError(
                    f"the ledger {self._path} is of schema {version}, newer than this syncd knows",
                    "install the syncd that wrote it, or a newer one",
                )
            for statement in ";".join(schema[version:]).split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(schema)}")

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows of a query; within a transaction of this thread, what that sees."""
        with self._sound():
            if self._writing == threading.get_ident():
                return self._db.execute(sql, values).fetchall()
            with self._reads:
                return self._reading.execute(sql, values).fetchall()

    def _read(self, rows: Iterable[sqlite3.Row], parse: Callable[[sqlite3.Row], _T]) -> list[_T]:
        """Return what the rows mean; one that means nothing is passed over, and told once."""
        found = []
        for row in rows:
            try:
                found.append(parse(row))
            except (SyncdError, ValueError, TypeError, OverflowError, RecursionError) as exc:
                shown = f"{tuple(row)!r:.300}"
                if shown not in self._told and len(self._told) < _TOLD_MAX:
                    self._told.add(shown)
                    log.warning("row of the ledger passed over", row=shown, error=str(exc)[:300])
        return found

    def _write(self, sql: str, *values: object) -> None:
        """Run one statement; it is on the disk when this returns."""
        self._commit(lambda db: db.execute(sql, values))

    def _commit(self, act: Callable[[Connection], object]) -> None:
        """Run statements, all or none; they are on the disk when this returns.

        Whatever other threads want to write meanwhile shares the transaction.  Statements that
        fail undo only what they did themselves.
        """
        mine = _Write(act)
        self._waiting.append(mine)
        with self._lock:  # whoever gets it first writes for all that wait
            if not mine.done:
                self._commit_all([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.error is not None:
            with self._sound():
                raise mine.error

    def _commit_all(self, together: list[_Write]) -> None:
        try:
            with self._transaction() as db:
                for write in together:
                    write.error = _attempted(db, write.act)
        except BaseException as exc:
            for write in together:
                write.error = write.error or exc
            raise
        finally:
            for write in together:
                write.done = True

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Give a transaction of its own, which is on the disk when the block has ended."""
        with self._sound(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._writing = threading.get_ident()
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # some faults have SQLite undo it by itself
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._writing = None

    def _shorten_log(self) -> None:
        """Write the log into the file and cut the log, unless another process reads just now."""
        with self._sound(), self._lock:
            self._db.execute("PRAGMA busy_timeout = 0")
            try:
                with suppress(sqlite3.OperationalError):
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000}")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise fault(self._path, exc) from exc


def _attempted(db: Connection, act: Callable[[Connection], object]) -> Exception | None:
    """Run a part of a transaction; return its fault, which then has undone this part alone.

    Raise the fault if it undid the whole transaction (https://www.sqlite.org/lang_transaction.html).
    """
    db.execute("SAVEPOINT part")
    try:
        act(db)
    except Exception as exc:
        if not db.in_transaction:
            raise
        db.execute("ROLLBACK TO part")
        return exc
    finally:
        if db.in_transaction:
            db.execute("RELEASE part")
    return None
