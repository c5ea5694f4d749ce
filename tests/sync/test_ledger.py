"""What `ledger` promises: what was written down is there, whatever happens next."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from syncd.errors import LedgerError
from syncd.formats import Format
from syncd.oci.reference import Digest, Platform, Reference
from syncd.sync.job import ABANDONED, Cause, JobRecord, Outcome, Result, State, SyncJob
from syncd.sync.ledger import Ledger
from syncd.sync.proof import Proof, ProofState
from syncd.sync.template import Template

REFERENCE = Reference.parse("ghcr.io/o/n:latest")
OTHER = Reference.parse("ghcr.io/o/other:latest")
DONE = Outcome(Result.PUBLISHED, "it is there", ("t:vztmpl/a.tar", "t:vztmpl/b.tar"))
TEMPLATE = Template(
    name="a.tar.zst",
    target="t",
    reference=REFERENCE,
    format=Format.ROOTFS,
    platform=Platform("linux", "arm", "v7"),
    digest=Digest("sha256", "a" * 64),
    manifest_digest=Digest("sha256", "b" * 64),
    config_digest=Digest("sha256", "c" * 64),
    diff_ids=(Digest("sha256", "d" * 64), Digest("sha512", "e" * 128)),
    file_digest=Digest("sha256", "f" * 64),
    size=1 << 40,
    created=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    volumes=("t:vztmpl/a.tar.zst",),
    syncd_version="1.2.3",
    pinned=True,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the ledger is."""
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """Open a new ledger."""
    with Ledger(path) as ledger:
        yield ledger


def job(reference: Reference = REFERENCE, cause: Cause = Cause.WEBHOOK) -> SyncJob:
    """Return a new job."""
    return SyncJob(reference, cause)


def test_a_job_through_its_life(ledger: Ledger, path: Path) -> None:
    """A job's state is what was written last, also for another process, without a close."""
    one = job()
    ledger.accept([one])
    assert reopened(path) == JobRecord(one, State.QUEUED)
    ledger.start(one.id)
    running = reopened(path)
    assert running.state is State.RUNNING
    ledger.finish(one.id, DONE)
    done = reopened(path)
    assert (done.job, done.state, done.outcome) == (one, State.DONE, DONE)
    assert done.started == running.started
    assert done.started is not None
    assert done.finished is not None
    assert one.created <= done.started <= done.finished <= datetime.now(UTC)
    assert ledger.unfinished() == []


def reopened(path: Path) -> JobRecord:
    """Return the only job that another process would see."""
    with Ledger(path) as ledger:
        (record,) = ledger.jobs(10)
        return record


def test_a_message_of_any_bytes(ledger: Ledger) -> None:
    """A message that quotes a name which is no text is written down all the same."""
    ledger.accept([one := job()])
    ledger.finish(one.id, replace(DONE, message="the file \udcff is bad"))
    record = ledger.job(one.id)
    assert record is not None
    assert record.outcome is not None
    assert record.outcome.message == r"the file \udcff is bad"


def test_unknown_job(ledger: Ledger) -> None:
    """A job that is not there is None."""
    assert ledger.job("none") is None


def test_a_crash_loses_nothing(path: Path) -> None:
    """What was acknowledged survives a process that is killed in the midst of a transaction."""
    script = """
import os, signal, sys
from pathlib import Path
from syncd.sync.job import Cause, SyncJob
from syncd.sync.ledger import Ledger
from syncd.oci.reference import Reference
ledger = Ledger(Path(sys.argv[1]))
job = SyncJob(Reference.parse("a.b/c:d"), Cause.WEBHOOK, "kept")
ledger.accept([job], {"delivery": ["kept"]})
with ledger._transaction() as db:
    db.execute("UPDATE jobs SET state = 'done'")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script, path], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        assert [one.id for one in ledger.unfinished()] == ["kept"]
        assert ledger.seen("delivery") == ["kept"]


def test_deliveries(ledger: Ledger) -> None:
    """A delivery is remembered with its jobs, the first time it came."""
    one, two = job(), job(OTHER)
    assert ledger.seen("1") is None
    ledger.accept([one, two], {"1": [one.id, two.id]})
    ledger.accept([], {"1": ["another"]})
    assert ledger.seen("1") == [one.id, two.id]
    ledger.accept([], {"2": []})
    assert ledger.seen("2") == []


def test_all_or_nothing(ledger: Ledger) -> None:
    """Jobs and delivery are written in one piece: where one fails there is none."""
    one = job()
    with pytest.raises(LedgerError, match="UNIQUE"):
        ledger.accept([one, one], {"1": [one.id]})
    assert ledger.job(one.id) is None
    assert ledger.seen("1") is None
    ledger.accept([one], {"1": [one.id]})
    assert ledger.seen("1") == [one.id]


def test_unfinished(ledger: Ledger) -> None:
    """What is taken up again comes as it was accepted, not by its time, and without the CLI's."""
    jobs = [
        SyncJob(REFERENCE, cause, name, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours))
        for name, cause, hours in [
            ("late", Cause.API, 3),
            ("early", Cause.WEBHOOK, 1),
            ("typed", Cause.CLI, 2),
            ("running", Cause.SWEEP, 2),
            ("done", Cause.SWEEP, 0),
        ]
    ]
    ledger.accept(jobs)
    ledger.start("running")
    ledger.finish("done", DONE)
    assert [one.id for one in ledger.unfinished()] == ["late", "early", "running"]


def test_newest_jobs(ledger: Ledger) -> None:
    """The newest jobs come first, as many as are asked for."""
    jobs = [job() for _ in range(5)]
    ledger.accept(jobs)
    assert [record.job for record in ledger.jobs(3)] == jobs[:1:-1]


def test_templates(ledger: Ledger) -> None:
    """A template comes back as it was, found by reference and target."""
    older = replace(TEMPLATE, name="b", created=TEMPLATE.created - timedelta(days=1), pinned=False)
    elsewhere = replace(older, target="u", name="c")
    others = replace(older, reference=OTHER, name="d")
    for template in (older, TEMPLATE, elsewhere, others):
        ledger.record(template)
    assert ledger.templates(REFERENCE, "t") == [TEMPLATE, older]
    assert set(ledger.templates(REFERENCE)) == {TEMPLATE, older, elsewhere}
    assert set(ledger.templates(target="t")) == {TEMPLATE, older, others}
    assert len(ledger.templates()) == 4


def test_order_is_not_the_clocks(ledger: Ledger, path: Path) -> None:
    """What was written down last is the newest, also after the clock stepped back two days."""
    today = datetime.now(UTC)
    jobs = [SyncJob(REFERENCE, Cause.API, str(i), today - timedelta(i)) for i in range(4)]
    rows = [replace(TEMPLATE, name=str(i), created=today - timedelta(2 * i)) for i in range(4)]
    for one, row in zip(jobs, rows, strict=True):
        ledger.accept([one])
        ledger.record(row)
    ledger.record(replace(rows[1], size=7))
    ledger.pin(TEMPLATE.volumes[0], pinned=False)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("VACUUM")
    assert [one.id for one in ledger.unfinished()] == ["0", "1", "2", "3"]
    assert [record.job.id for record in ledger.jobs(3)] == ["3", "2", "1"]
    assert [template.name for template in ledger.templates(REFERENCE)] == ["1", "3", "2", "0"]


def test_order_of_the_first_release(path: Path) -> None:
    """Jobs and templates of an older ledger keep the order of their times, then of their rows."""
    dump = Path(__file__).parents[1] / "data" / "ledger-1.sql"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(dump.read_text())
        for name, day in [("z", 20), ("b", 10), ("a", 10)]:
            old.execute(
                "INSERT INTO jobs SELECT ?, reference, cause, 'queued', ?, NULL, NULL, NULL, NULL, "
                "NULL FROM jobs WHERE id = 'queued'",
                (name, f"2026-11-{day}T00:00:00.000000+00:00"),
            )
            old.execute(
                "INSERT INTO templates SELECT target, ?, reference, format, platform, digest, "
                "manifest_digest, config_digest, diff_ids, file_digest, size, ?, volumes, "
                "syncd_version, 0, 1 FROM templates WHERE pinned",
                (name, f"2026-11-{day}T00:00:00.000000+00:00"),
            )
    with Ledger(path) as ledger:
        ledger.accept([SyncJob(REFERENCE, Cause.API, "new", datetime(2020, 1, 1, tzinfo=UTC))])
        assert [one.id for one in ledger.unfinished()] == ["b", "a", "z", "queued", "new"]
        assert [template.name for template in ledger.templates()][1:] == ["z", "a", "b"]


def test_record_again(ledger: Ledger) -> None:
    """The same name of the same reference is one row; of two references it is two."""
    ledger.record(TEMPLATE)
    ledger.record(replace(TEMPLATE, size=5))
    ledger.record(replace(TEMPLATE, reference=OTHER))
    assert [template.size for template in ledger.templates(REFERENCE)] == [5]
    assert len(ledger.templates()) == 2


def test_intended(ledger: Ledger) -> None:
    """What was only meant to be published is no template, but is known to be syncd's own."""
    ledger.intend(TEMPLATE)
    assert ledger.templates() == []
    assert ledger.made("t", TEMPLATE.name) == TEMPLATE
    assert ledger.made("u", TEMPLATE.name) is None
    ledger.record(done := replace(TEMPLATE, volumes=("t:vztmpl/x",)))
    ledger.intend(replace(TEMPLATE, reference=OTHER))
    assert ledger.templates() == [done]
    assert ledger.made("t", TEMPLATE.name) == done
    ledger.forget("t", TEMPLATE.name)
    assert ledger.made("t", TEMPLATE.name) is None


def test_forget(ledger: Ledger) -> None:
    """A file that is gone is gone for every reference, on its own target only."""
    for template in (
        TEMPLATE,
        replace(TEMPLATE, reference=OTHER),
        kept := replace(TEMPLATE, target="u"),
    ):
        ledger.record(template)
    ledger.forget("t", TEMPLATE.name)
    ledger.forget("t", TEMPLATE.name)
    assert ledger.templates() == [kept]


def test_forget_one_reference(ledger: Ledger) -> None:
    """A file that one reference does not mean any more stays with the other."""
    ledger.record(TEMPLATE)
    ledger.record(kept := replace(TEMPLATE, reference=OTHER))
    ledger.forget("t", TEMPLATE.name, REFERENCE)
    assert ledger.templates() == [kept]


def test_clock(ledger: Ledger, path: Path) -> None:
    """The first question for a run marks it now; later ones give what was marked."""
    before = datetime.now(UTC)
    first = ledger.last_run("weekly")
    assert before <= first <= datetime.now(UTC)
    assert ledger.last_run("weekly") == first
    ledger.mark_run("weekly")
    with Ledger(path) as reopened:
        assert reopened.last_run("weekly") > first


def test_expire(ledger: Ledger, path: Path) -> None:
    """Deliveries and finished jobs of long ago are dropped; unfinished ones and templates stay."""
    jobs = [
        SyncJob(REFERENCE, Cause.API, name, datetime.now(UTC) - timedelta(days=days))
        for name, days in [("old", 91), ("young", 89), ("waiting", 91)]
    ]
    ledger.accept(jobs, {"old": []})
    ledger.accept([], {"young": []})
    ledger.record(TEMPLATE)
    for name in ("old", "young"):
        ledger.finish(name, DONE)
    with sqlite3.connect(path) as db:
        long_ago = (datetime.now(UTC) - timedelta(days=91)).isoformat(timespec="microseconds")
        db.execute("UPDATE deliveries SET received = ? WHERE id = 'old'", (long_ago,))
    db.close()
    ledger.expire()
    assert {record.job.id for record in ledger.jobs(10)} == {"young", "waiting"}
    assert (ledger.seen("old"), ledger.seen("young")) == (None, [])
    assert ledger.templates() == [TEMPLATE]


def test_newer_schema(ledger: Ledger, path: Path) -> None:
    """A ledger of a schema that is not known is refused, and left as it is."""
    ledger.accept([job()])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerError, match=r"of schema 99, newer.*install the syncd"):
        Ledger(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("size", [0, 3000, 90_000])
def test_a_damaged_ledger(path: Path, size: int) -> None:
    """A file that is no ledger any more is said to be damaged, with both ways out."""
    with Ledger(path) as ledger:
        ledger.accept([job() for _ in range(1000)])
    content = bytearray(path.read_bytes())
    content[size:] = b"\xaa" * (len(content) - size)
    path.write_bytes(content)
    damaged = f"{path} is damaged.*`syncd restore FILE`"
    with pytest.raises(LedgerError, match=damaged) as caught, Ledger(path) as ledger:
        ledger.unfinished()
    assert "start anew" in caught.value.hint
    assert "check its disk" not in str(caught.value)
    assert not caught.value.temporary


def test_a_folder_instead_of_the_ledger(path: Path) -> None:
    """A path that is no file is said so."""
    path.mkdir(parents=True)
    with pytest.raises(LedgerError, match=f"{path} cannot be opened.*that the path is a file"):
        Ledger(path)


def test_folder_in_the_way(tmp_path: Path) -> None:
    """A state folder that cannot be made is an error that names the ledger."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(tmp_path / "file" / "ledger.sqlite")


def test_full_disk(ledger: Ledger) -> None:
    """A full disk is an error that says so; with room again the ledger goes on, unharmed."""
    kept = job()
    ledger.accept([kept])
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="full"):
        ledger.accept([job() for _ in range(1000)], {"1": []})
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.seen("1") is None
    ledger.accept([after := job()])
    assert ledger.unfinished() == [kept, after]


def test_refusing_disk(ledger: Ledger, path: Path) -> None:
    """A disk that refuses the commit itself leaves nothing of it, and no transaction open."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    written = path.with_name(f"{path.name}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(LedgerError, match="disk I/O error"):
                ledger.accept([job()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ledger.accept([after := job()])
    assert ledger.unfinished() == [after]


def test_many_threads_and_processes(ledger: Ledger, path: Path) -> None:
    """Threads of one process and two ledgers on one file write side by side, losing nothing."""
    with Ledger(path) as second:

        def write(to: Ledger) -> None:
            for _ in range(10):
                to.accept([job()])

        threads = [threading.Thread(target=write, args=(one,)) for one in [ledger, second] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ledger.jobs(1000)) == 60


def test_closed_while_in_use(path: Path) -> None:
    """A ledger is closed when no thread is at it any more; for those that come later it is gone."""
    ledger = Ledger(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with closing(other), ThreadPoolExecutor(2) as pool:
        writing = pool.submit(ledger.start, "a")
        wait([writing], timeout=0.2)
        closing_it = pool.submit(ledger.close)
        assert wait([writing, closing_it], timeout=0.2).done == set()
        other.execute("ROLLBACK")
        writing.result()
        closing_it.result()
    with pytest.raises(LedgerError, match="closed"):
        ledger.start("b")


def test_opened_by_many_at_once(path: Path) -> None:
    """Several processes may make the ledger at the same moment."""
    script = "import sys; from pathlib import Path; from syncd.sync.ledger import Ledger\n"
    script += "sys.stdin.readline(); Ledger(Path(sys.argv[1])).mark_run('x')"
    started = [
        subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert os.access(path, os.R_OK)


def test_every_commit_is_on_the_disk(ledger: Ledger) -> None:
    """The ledger is a write-ahead log whose commits are flushed (synchronous = FULL is 2)."""
    assert ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_ledger_of_the_first_release(path: Path) -> None:
    """The ledger of an installed syncd 0.1.0 is read as it was written, and goes on."""
    dump = Path(__file__).parents[1] / "data" / "ledger-1.sql"
    path.parent.mkdir()
    with sqlite3.connect(path) as old:
        old.executescript(dump.read_text())
    old.close()
    with Ledger(path) as ledger:
        (template,) = ledger.templates()
        assert template.name == "ghcr.io_acme_base_latest_0123456789ab.tar.zst"
        assert str(template.reference) == "ghcr.io/acme/base:latest"
        assert template.volumes == (f"cephfs:vztmpl/{template.name}",)
        assert template.pinned
        assert ledger.made("cephfs", "ghcr.io_acme_base_next_ba9876543210.tar.zst") is not None
        assert [job.id for job in ledger.unfinished()] == ["queued"]
        done = ledger.job("done")
        assert done is not None
        assert done.outcome == Outcome(Result.PUBLISHED, "it is published", template.volumes)
        assert ledger.seen("delivery") == ["queued"]
        assert ledger.last_run("weekly").isoformat() == "2026-11-22T23:30:00+00:00"
        assert ledger.pin(template.volumes[0], pinned=False)
        ledger.finish("queued", Outcome(Result.UNCHANGED, "fine"))
        assert ledger.unfinished() == []


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("jobs", "reference", "ghcr.io/o/n:v2 x"),
        ("jobs", "reference", "ghcr.io/o/n:v2/../../x"),
        ("jobs", "reference", b"\xff"),
        ("jobs", "cause", "fate"),
        ("jobs", "state", "lost"),
        ("jobs", "created", "yesterday"),
        ("jobs", "volumes", "{"),
        ("jobs", "volumes", None),
        ("jobs", "result", "perhaps"),
        ("templates", "reference", "ghcr.io/o/n:v2+1"),
        ("templates", "digest", "sha256:12"),
        ("templates", "diff_ids", "["),
        ("templates", "format", "zip"),
        ("templates", "platform", ""),
        ("templates", "created", ""),
    ],
)
def test_rows_that_mean_nothing(
    ledger: Ledger, path: Path, table: str, column: str, value: object
) -> None:
    """One row that cannot be read keeps nobody from the others, and is told once."""
    bad, good = SyncJob(OTHER, Cause.API), SyncJob(REFERENCE, Cause.API)
    ledger.accept([bad, good])
    ledger.finish(bad.id, DONE)
    ledger.record(TEMPLATE)
    ledger.record(replace(TEMPLATE, reference=OTHER))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE reference = ?",
            (value, str(OTHER)),
        )
    with capture_logs() as logs:
        for _ in range(2):
            assert good in [record.job for record in ledger.jobs(10)]
            assert ledger.unfinished() == [good]
            assert TEMPLATE in ledger.templates()
            assert ledger.made("t", TEMPLATE.name) is not None
            assert ledger.pin("t:vztmpl/a.tar.zst", pinned=True)
            ledger.job(bad.id)
        assert len(ledger.jobs(10)) == (1 if table == "jobs" else 2)
        assert len(ledger.templates()) == (1 if table == "templates" else 2)
    assert len(logs) == 1
    assert logs[0]["event"] == "row of the ledger passed over"


def test_small_rows_that_mean_nothing(ledger: Ledger, path: Path) -> None:
    """A clock and a delivery that cannot be read stop neither the start nor the sender."""
    ledger.mark_run("sweep")
    ledger.accept([], {"delivery": ["job"]})
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE clock SET at = 'noon'")
        db.execute("UPDATE deliveries SET jobs = '['")
    assert datetime.now(UTC) - ledger.last_run("sweep") < timedelta(minutes=1)
    assert ledger.seen("delivery") == []
    assert ledger.seen("other") is None


def test_attempts(ledger: Ledger) -> None:
    """Each beginning of a job counts, except one that a clean end of the process cut short."""
    ledger.accept([one := job(), two := job(OTHER)])
    for attempt in (1, 2, 3):
        ledger.start(one.id)
        ledger.start(two.id)
        assert ledger.unfinished(attempts=attempt) == [one, two] if attempt == 1 else [one]
        assert ledger.unfinished(attempts=attempt + 1) == []
        ledger.leave([two.id])
        assert two in ledger.unfinished()
        assert ledger.unfinished(attempts=1) == [one]
    record = ledger.job(two.id)
    assert record is not None
    assert record.state is State.QUEUED
    ledger.finish(one.id, DONE)
    ledger.leave([one.id])
    assert ledger.unfinished() == [two]
    assert ledger.unfinished(attempts=1) == []


def test_a_command_that_is_killed(path: Path) -> None:
    """The job of a killed command ends as interrupted, and that of a living one goes on."""
    script = """
import sys, time
from pathlib import Path
from syncd.sync.job import Cause, SyncJob
from syncd.sync.ledger import Ledger
from syncd.oci.reference import Reference
ledger = Ledger(Path(sys.argv[1]))
ledger.accept([SyncJob(Reference.parse("a.b/c:d"), Cause.CLI, name) for name in ("ran", "waited")])
ledger.start("ran")
print("written", flush=True)
time.sleep(60)
"""
    with (
        Ledger(path) as ledger,
        subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process,
    ):
        ledger.accept([own := job(cause=Cause.CLI), daemons := job()])
        assert process.stdout is not None
        process.stdout.readline()
        assert ledger.end_abandoned() == []
        process.kill()
        process.wait()
        assert {one.id for one in ledger.end_abandoned()} == {"ran", "waited"}
        assert ledger.end_abandoned() == []
        for name in ("ran", "waited"):
            record = ledger.job(name)
            assert record is not None
            assert record.outcome is not None
            assert (record.state, record.outcome.result) == (State.DONE, Result.INTERRUPTED)
        assert ledger.unfinished() == [daemons]
        ledger.leave([])
        record = ledger.job(own.id)
        assert record is not None
        assert record.outcome is not None
        assert record.outcome.result is Result.INTERRUPTED
        assert ledger.unfinished() == [daemons]


def test_jobs_of_dead_processes(path: Path) -> None:
    """Who looks on sees that a killed command's job ended, and that a killed daemon's waits."""
    script = """
import sys, time
from pathlib import Path
from syncd.sync.job import Cause, SyncJob
from syncd.sync.ledger import Ledger
from syncd.oci.reference import Reference
ledger = Ledger(Path(sys.argv[1]))
for cause in (Cause.CLI, Cause.API):
    ledger.accept([SyncJob(Reference.parse("a.b/c:d"), cause, cause.value)])
    ledger.start(cause.value)
print("written", flush=True)
time.sleep(60)
"""
    with (
        Ledger(path) as ledger,
        subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process,
    ):

        def seen() -> dict[str, tuple[State, Outcome | None]]:
            return {one.job.id: (one.state, one.outcome) for one in ledger.board.left(9)}

        assert process.stdout is not None
        process.stdout.readline()
        ledger.accept([own := job(cause=Cause.CLI)])
        ledger.start(own.id)
        running = (State.RUNNING, None)
        assert seen() == {"cli": running, "api": running, own.id: running}
        process.kill()
        process.wait()
        assert seen() == {
            "cli": (State.DONE, ABANDONED),
            "api": (State.QUEUED, None),
            own.id: running,
        }
        assert [one.id for one in ledger.unfinished()] == ["api"]


def test_proofs(ledger: Ledger) -> None:
    """What a file was last found to be replaces what was known of it, target by target."""
    ok = Proof("t", "a.tar.zst", 7, TEMPLATE.file_digest, ProofState.OK, TEMPLATE.created)
    cut = replace(ok, state=ProofState.CUT)
    assert ledger.proofs.of("t", "a.tar.zst") is None
    ledger.proofs.put(ok)
    assert ledger.proofs.of("t", "a.tar.zst") == ok
    ledger.proofs.put(cut)
    assert ledger.proofs.of("t", "a.tar.zst") == cut
    assert ledger.proofs.of("other", "a.tar.zst") is None
