"""What `database` promises: shared transactions, a bounded log, faults that say what they mean."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import LedgerError, LedgerUnavailableError
from syncd.sync.database import Database, fault

SCHEMA = ("CREATE TABLE things (name TEXT PRIMARY KEY)",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is."""
    return tmp_path / "file.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """Open a new file."""
    with closing(Database(path, SCHEMA)) as database:
        yield database


class Slow:
    """A connection to a disk that needs its time for a flush, and counts the flushes."""

    def __init__(self, connection: sqlite3.Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.commits = 0

    def execute(self, sql: str, *values: Any) -> Any:
        """Run a statement."""
        if sql == "COMMIT":
            time.sleep(self._seconds)
            self.commits += 1
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def put(database: Database, name: str) -> None:
    """Write one thing."""
    database._write("INSERT INTO things VALUES (?)", name)


def names(database: Database) -> set[str]:
    """Return the things that are written."""
    return {row["name"] for row in database._all("SELECT name FROM things")}


def test_who_waits_together_shares_a_flush(database: Database) -> None:
    """Twenty writes that wait for a slow disk need two or three flushes, and each is written."""
    database._db = slow = Slow(database._db, 0.2)  # type: ignore[assignment]
    wanted = {str(number) for number in range(20)}
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda name: put(database, name), wanted))
    assert names(database) == wanted
    assert slow.commits <= 3


def test_a_part_fails_alone(database: Database) -> None:
    """A write that breaks a rule is undone and told to its writer; the others are written."""
    database._db = slow = Slow(database._db, 0.2)  # type: ignore[assignment]
    put(database, "taken")

    def twice(name: str) -> None:
        def act(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO things VALUES (?)", (f"{name} beside",))
            db.execute("INSERT INTO things VALUES (?)", (name,))

        database._commit(act)

    with ThreadPoolExecutor(9) as pool:
        parts = [pool.submit(twice, name) for name in ("a", "b", "taken", "c", "d")]
    assert [type(part.exception()) for part in parts].count(LedgerError) == 1
    with pytest.raises(LedgerError, match="UNIQUE"):
        parts[2].result()
    assert names(database) == {"taken"} | {f"{n}{w}" for n in "abcd" for w in ("", " beside")}
    assert slow.commits <= 4


def test_a_refused_flush_is_told_to_each(database: Database) -> None:
    """Where the shared transaction itself fails, nothing is written and every writer is told."""

    class Refusing(Slow):
        def execute(self, sql: str, *values: Any) -> Any:
            if sql == "COMMIT":
                time.sleep(0.1)
                raise refusal(sqlite3.SQLITE_IOERR)
            return self._connection.execute(sql, *values)

    sound = database._db
    database._db = Refusing(sound, 0)  # type: ignore[assignment]
    with ThreadPoolExecutor(5) as pool:
        parts = [pool.submit(put, database, str(number)) for number in range(5)]
    assert {type(part.exception()) for part in parts} == {LedgerUnavailableError}
    database._db = sound
    assert names(database) == set()
    put(database, "after")
    assert names(database) == {"after"}


def test_reads_wait_for_no_write(database: Database) -> None:
    """A question is answered while a write waits for the disk; it sees what is committed."""
    put(database, "there")
    database._db = Slow(database._db, 0.5)  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(put, database, "coming")
        time.sleep(0.1)
        begun = time.monotonic()
        assert names(database) == {"there"}
        assert time.monotonic() - begun < 0.3
        writing.result()
    assert names(database) == {"there", "coming"}


def test_a_transaction_sees_what_it_wrote(database: Database) -> None:
    """A question within a transaction sees its own rows, and nobody else does before its end."""
    with database._transaction() as db, ThreadPoolExecutor(1) as pool:
        db.execute("INSERT INTO things VALUES ('mine')")
        assert names(database) == {"mine"}
        assert pool.submit(names, database).result() == set()


def test_the_log_is_bounded(database: Database, path: Path) -> None:
    """The file beside the database is cut, unless another process reads; then it stays, untold."""
    wal = path.with_name(f"{path.name}-wal")
    for number in range(50):
        put(database, str(number))
    assert wal.stat().st_size > 0
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM things").fetchall()
        put(database, "more")
        begun = time.monotonic()
        database._shorten_log()
        assert time.monotonic() - begun < 1
        assert wal.stat().st_size > 0
    database._shorten_log()
    assert wal.stat().st_size == 0
    assert database._db.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000
    assert database._db.execute("PRAGMA journal_size_limit").fetchone()[0] == 16 << 20


def refusal(code: int) -> sqlite3.OperationalError:
    """Return an error as SQLite raises it."""
    error = sqlite3.OperationalError("as SQLite calls it")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "passing", "words"),
    [
        (sqlite3.SQLITE_BUSY, True, "is held by another process"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True, "is held by another process"),
        (sqlite3.SQLITE_IOERR_FSYNC, True, "its disk reports an error"),
        (sqlite3.SQLITE_FULL, True, "its disk is full; make room"),
        (sqlite3.SQLITE_READONLY_DBMOVED, False, "is read-only"),
        (sqlite3.SQLITE_CANTOPEN, False, "cannot be opened"),
        (sqlite3.SQLITE_CORRUPT_INDEX, False, "is damaged"),
        (sqlite3.SQLITE_NOTADB, False, "is damaged"),
        (sqlite3.SQLITE_ERROR, False, "cannot be used"),
    ],
)
def test_faults(path: Path, code: int, passing: bool, words: str) -> None:
    """Each kind of fault has its sentence, and says whether it may pass by itself."""
    path.write_bytes(b"no database" * 1000)
    error = fault(path, refusal(code))
    told = str(error).replace(": as SQLite calls it", "")
    assert words in told
    assert error.temporary is passing
    assert ("disk" in told) is (code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL))


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB])
def test_called_damaged(database: Database, path: Path, code: int) -> None:
    """A file that SQLite calls malformed, since its disk failed for a moment, is not damaged."""
    put(database, "there")
    error = fault(path, refusal(code))
    assert error.temporary
    assert "its disk reports an error" in str(error)
    database.close()
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    path.write_bytes(content)
    assert not fault(path, refusal(code)).temporary


def test_killed_at_random_instants(path: Path) -> None:
    """Whatever a killed process had been told is written is there, in twelve kills."""
    script = """
import sys, threading
from pathlib import Path
from syncd.sync.database import Database
database = Database(Path(sys.argv[1]), ("CREATE TABLE things (name TEXT PRIMARY KEY)",))
told = threading.Lock()
def write(worker):
    for number in range(1_000_000):
        name = f"{sys.argv[2]}-{worker}-{number}"
        database._write("INSERT INTO things VALUES (?)", name)
        with told:
            sys.stdout.write(name + chr(10))
            sys.stdout.flush()
for worker in range(4):
    threading.Thread(target=write, args=(worker,)).start()
"""
    chance, told = random.Random(4), 0
    for attempt in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", script, path, str(attempt)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            os.kill(process.pid, signal.SIGKILL)
            written = [first, *process.stdout]
        with closing(Database(path, SCHEMA)) as database:
            kept = names(database)
        whole = [line.decode().strip() for line in written if line.endswith(b"\n")]
        assert set(whole) <= kept
        told += len(whole)
    assert told > 12
