"""What `backup` promises: the whole ledger in one file, and back from it, or nothing changed."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.errors import LedgerError, RequestError, StorageError
from syncd.sync.backup import back_up, restore
from syncd.sync.job import Cause, SyncJob
from syncd.sync.ledger import Ledger
from tests.sync.test_ledger import REFERENCE, TEMPLATE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "state" / "ledger.sqlite"


def ids(path: Path) -> list[str]:
    """Return the jobs of a ledger, oldest first."""
    with Ledger(path) as ledger:
        return [job.id for job in ledger.unfinished()]


def put(ledger: Ledger, *names: str) -> None:
    """Write jobs."""
    ledger.accept([SyncJob(REFERENCE, Cause.API, name) for name in names])


def everything(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_there_and_back(path: Path, tmp_path: Path) -> None:
    """A backup of a ledger in use has its last minutes; the restored ledger is that one."""
    copy, file = tmp_path / "copied", tmp_path / "backup"
    with Ledger(path) as ledger:
        put(ledger, "first", "second")
        ledger.record(TEMPLATE)
        shutil.copy(path, copy)
        back_up(path, file)
        put(ledger, "later")
    with closing(sqlite3.connect(copy)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("SELECT * FROM jobs").fetchall()  # what copying the file alone would lose
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["backup", "copied", "state"]
    old = restore(file, path)
    assert old == path.with_name("ledger.sqlite.replaced-1")
    assert ids(path) == ["first", "second"]
    assert ids(old) == ["first", "second", "later"]
    with Ledger(path) as ledger:
        assert ledger.templates() == [TEMPLATE]
        assert ledger.pin(TEMPLATE.volumes[0], pinned=False)
    assert ids(file) == ["first", "second"]


def test_the_old_log_does_not_come_along(path: Path, tmp_path: Path) -> None:
    """The log of a killed daemon stays with the old ledger, which keeps all it had."""
    file = tmp_path / "backup"
    with Ledger(path) as ledger:
        put(ledger, "kept")
    back_up(path, file)
    script = "import os, sys; from pathlib import Path; from tests.sync.test_backup import *\n"
    script += "put(Ledger(Path(sys.argv[1])), 'late'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, path], check=False, timeout=30)
    assert path.with_name("ledger.sqlite-wal").stat().st_size
    old = restore(file, path)
    assert old is not None
    assert ids(path) == ["kept"]
    assert ids(old) == ["kept", "late"]
    assert restore(file, path) == path.with_name("ledger.sqlite.replaced-2")
    assert ids(old) == ["kept", "late"]


def test_without_a_ledger(path: Path, tmp_path: Path) -> None:
    """A backup becomes the ledger of a new machine; a missing ledger has no backup."""
    with Ledger(tmp_path / "other.sqlite") as ledger:
        put(ledger, "one")
        back_up(tmp_path / "other.sqlite", tmp_path / "backup")
    with pytest.raises(LedgerError, match="there is no ledger"):
        back_up(path, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    assert restore(tmp_path / "backup", path) is None
    assert ids(path) == ["one"]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have another process keep the ledger open, idle."""
    script = "import sys; from pathlib import Path; from syncd.sync.ledger import Ledger\n"
    script += "Ledger(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


def test_in_use(path: Path, tmp_path: Path) -> None:
    """A ledger that a process has open is not replaced, and the way out is told."""
    file = tmp_path / "backup"
    with Ledger(path) as ledger:
        put(ledger, "one")
    back_up(path, file)
    with held(path):
        with pytest.raises(LedgerError, match=r"is in use; stop the daemon \(systemctl stop"):
            restore(file, path)
        names = {entry.name.partition("-")[0] for entry in path.parent.iterdir()}
        assert names == {"ledger.sqlite"}
    assert restore(file, path) is not None


def test_instead_of_a_damaged_ledger(path: Path, tmp_path: Path) -> None:
    """A damaged ledger has no backup, and is replaced by one that was made before."""
    with Ledger(path) as ledger:
        put(ledger, "one", *(str(number) for number in range(1000)))
    back_up(path, tmp_path / "good")
    content = bytearray(path.read_bytes())
    content[60_000:64_096] = b"\xaa" * 4096
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=f"{path} is damaged.*syncd restore FILE"):
        back_up(path, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    path.write_bytes(b"not even the beginning of a database " * 1000)
    with pytest.raises(LedgerError, match=f"{path} is damaged"):
        back_up(path, tmp_path / "bad")
    restore(tmp_path / "good", path)
    assert ids(path)[0] == "one"


@pytest.mark.parametrize("kind", ["text", "cut", "other", "newer", "damaged", "missing", "folder"])
def test_not_a_backup(path: Path, tmp_path: Path, kind: str) -> None:
    """What is no whole ledger of this syncd is refused by name, and nothing is changed."""
    file = tmp_path / "file"
    with Ledger(path) as ledger:
        put(ledger, *(str(number) for number in range(1000)))
    back_up(path, file)
    with closing(sqlite3.connect(file)) as db, db:
        if kind == "newer":
            db.execute("PRAGMA user_version = 99")
        if kind == "other":
            db.execute("DROP TABLE jobs")
    if kind == "text":
        file.write_text("a text " * 1000)
    if kind == "cut":
        os.truncate(file, file.stat().st_size // 2)
    if kind == "damaged":
        content = bytearray(file.read_bytes())
        content[60_000:64_096] = b"\xaa" * 4096
        file.write_bytes(content)
    if kind in ("missing", "folder"):
        file.unlink()
    if kind == "folder":
        file.mkdir()
    before = everything(path.parent)
    with pytest.raises(LedgerError, match=str(file)) as caught:
        restore(file, path)
    assert "syncd restore" not in str(caught.value)
    assert everything(path.parent) == before


def test_a_backup_that_cannot_be_written(path: Path, tmp_path: Path) -> None:
    """A name that is taken by no file, and a full disk, are told; an older backup stays."""
    with Ledger(path) as ledger:
        put(ledger, *(str(number) for number in range(1000)))
    with pytest.raises(StorageError, match="is no file"):
        back_up(path, tmp_path)
    file = tmp_path / "backup"
    file.write_text("older")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises((StorageError, LedgerError)):
            back_up(path, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_text() == "older"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["backup", "state"]


@pytest.mark.parametrize("name", ["", "/", ".", "-", "unmounted/of a day/backup"])
def test_no_place_for_a_backup(
    path: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no file's name is told, and so is a missing folder, which is not made."""
    with Ledger(path) as ledger:
        put(ledger, "one")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"no file is named|mkdir -p 'unmounted/of a day'"):
        back_up(path, Path(name))
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_backup_is_private(path: Path, tmp_path: Path) -> None:
    """The names of private images are in the ledger: a backup is its user's alone."""
    with Ledger(path) as ledger:
        put(ledger, "one")
    file = tmp_path / "backup"
    file.touch(0o644)
    back_up(path, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_backups_while_others_write(path: Path, tmp_path: Path) -> None:
    """Each backup is one moment: with a job it has all jobs before it, and their deliveries."""
    done = threading.Event()
    with Ledger(path) as ledger:

        def write() -> None:
            number = 0
            while not done.is_set():
                ledger.accept(
                    [SyncJob(REFERENCE, Cause.API, str(number))], {f"d{number}": [str(number)]}
                )
                ledger.record(replace(TEMPLATE, name=str(number)))
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for turn in range(10):
                time.sleep(0.02)
                back_up(path, tmp_path / str(turn))
        finally:
            done.set()
            writer.join()
    for turn in range(10):
        with Ledger(tmp_path / str(turn)) as kept:
            jobs = [job.id for job in kept.unfinished()]
            assert jobs == [str(number) for number in range(len(jobs))]
            assert not jobs or kept.seen(f"d{jobs[-1]}") == [jobs[-1]]
            assert kept.seen(f"d{len(jobs)}") is None
            assert len(kept.templates()) in (len(jobs) - 1, len(jobs))


def test_killed_at_random_instants(path: Path, tmp_path: Path) -> None:
    """After each kill of a restore there is the old ledger, whole, or the new one; or one aside."""
    chance, file = random.Random(5), tmp_path / "backup"
    with Ledger(path) as ledger:
        put(ledger, "new")
    back_up(path, file)
    script = "import sys; from pathlib import Path; from syncd.sync.backup import restore\n"
    script += "print('ready', flush=True)\nwhile True: restore(*map(Path, sys.argv[1:]))"
    for _ in range(4):
        shutil.rmtree(path.parent)
        with Ledger(path) as ledger:
            put(ledger, "old")
        with subprocess.Popen(
            [sys.executable, "-c", script, file, path], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            os.kill(process.pid, signal.SIGKILL)
        aside = path.with_name("ledger.sqlite.replaced-1")
        assert ids(aside if aside.exists() else path) == ["old"]
        if path.exists():
            assert ids(path) in (["old"], ["new"])
        restore(file, path)
        assert ids(path) == ["new"]


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_onto_itself(path: Path, ending: str, tmp_path: Path) -> None:
    """The ledger's own files are no place for a backup, under any name of theirs."""
    (tmp_path / "link").symlink_to(path.parent)
    with Ledger(path) as ledger:
        put(ledger, "first")
        before = path.stat().st_ino
        for folder in (path.parent, tmp_path / "link"):
            with pytest.raises(LedgerError, match="is the ledger itself; name another"):
                back_up(path, folder / f"{path.name}{ending}")
        assert path.stat().st_ino == before
