"""The ledger: deliveries, jobs and templates, on disk before anybody is told of them.

SQLite in WAL mode with every commit flushed: what was acknowledged survives a power failure.
Small and quick by design (a commit is one flush), so the event loop writes to it directly; one
lock makes it safe from threads.  It never holds a secret.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from syncd.belonging import make_folder
from syncd.errors import LedgerError
from syncd.job import Cause, JobRecord, Outcome, Result, State, SyncJob
from syncd.reference import Digest, Platform, Reference
from syncd.template import Format, Template

_SCHEMA = (
    """
    CREATE TABLE deliveries (id TEXT PRIMARY KEY, received TEXT NOT NULL, jobs TEXT NOT NULL);
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY, reference TEXT NOT NULL, cause TEXT NOT NULL, state TEXT NOT NULL,
        created TEXT NOT NULL, started TEXT, finished TEXT,
        result TEXT, message TEXT, volumes TEXT
    );
    CREATE INDEX jobs_by_state ON jobs (state);
    CREATE INDEX jobs_by_time ON jobs (created);
    CREATE TABLE templates (
        target TEXT NOT NULL, name TEXT NOT NULL, reference TEXT NOT NULL, format TEXT NOT NULL,
        platform TEXT NOT NULL, digest TEXT NOT NULL, manifest_digest TEXT NOT NULL,
        config_digest TEXT NOT NULL,
        diff_ids TEXT NOT NULL, file_digest TEXT NOT NULL, size INTEGER NOT NULL,
        created TEXT NOT NULL, volumes TEXT NOT NULL, syncd_version TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0, published INTEGER NOT NULL,
        PRIMARY KEY (target, name, reference)
    );
    CREATE INDEX templates_by_reference ON templates (reference);
    CREATE TABLE clock (run TEXT PRIMARY KEY, at TEXT NOT NULL);
    """,
)
"""Each entry brings the schema from its position to the next; `user_version` counts them."""

_REMEMBERED = timedelta(days=90)


class Ledger:
    """The ledger in one file; several processes may use it at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._sound():
            make_folder(path.parent)
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            try:
                self._db.row_factory = sqlite3.Row
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._migrate()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go, once no thread is at it; whoever comes later gets a LedgerError."""
        with self._lock:
            self._db.close()

    def seen(self, delivery: str) -> list[str] | None:
        """Return the job ids that a delivery led to, or None if it is new."""
        row = self._one("SELECT jobs FROM deliveries WHERE id = ?", delivery)
        return json.loads(row["jobs"]) if row else None

    def accept(
        self, new: Iterable[SyncJob], delivery: str | None = None, jobs: Sequence[str] = ()
    ) -> None:
        """Write down new jobs, and the delivery with all the job ids it led to, at once."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO jobs (id, reference, cause, state, created) VALUES (?, ?, ?, ?, ?)",
                [
                    (job.id, str(job.reference), job.cause, State.QUEUED, _text(job.created))
                    for job in new
                ],
            )
            if delivery is not None:
                db.execute(
                    "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?)",
                    (delivery, _text(datetime.now(UTC)), json.dumps(list(jobs))),
                )

    def start(self, job: str) -> None:
        """Write down that a job runs."""
        self._write(
            "UPDATE jobs SET state = ?, started = ? WHERE id = ?",
            State.RUNNING,
            _text(datetime.now(UTC)),
            job,
        )

    def finish(self, job: str, outcome: Outcome) -> None:
        """Write down how a job ended."""
        self._write(
            "UPDATE jobs SET state = ?, finished = ?, result = ?, message = ?, volumes = ? "
            "WHERE id = ?",
            State.DONE,
            _text(datetime.now(UTC)),
            outcome.result,
            # It may quote a file's name, and that may be any bytes (PEP 383).
            outcome.message.encode("utf-8", "backslashreplace").decode(),
            json.dumps(outcome.volumes),
            job,
        )

    def unfinished(self) -> list[SyncJob]:
        """Return the jobs that were queued or running when the daemon ended, oldest first.

        Those of the command line belong to the process that typed them, and are not among them.
        """
        rows = self._all(
            "SELECT * FROM jobs WHERE state != ? AND cause != ? ORDER BY created",
            State.DONE,
            Cause.CLI,
        )
        return [_record(row).job for row in rows]

    def job(self, job: str) -> JobRecord | None:
        """Return one job."""
        row = self._one("SELECT * FROM jobs WHERE id = ?", job)
        return _record(row) if row else None

    def jobs(self, most: int) -> list[JobRecord]:
        """Return the newest jobs, newest first."""
        rows = self._all("SELECT * FROM jobs ORDER BY created DESC, rowid DESC LIMIT ?", most)
        return [_record(row) for row in rows]

    def last_run(self, run: str) -> datetime:
        """Return when a run of the schedule was last marked, marking it now if it never was."""
        now = _text(datetime.now(UTC))
        self._write("INSERT OR IGNORE INTO clock VALUES (?, ?)", run, now)
        row = self._one("SELECT at FROM clock WHERE run = ?", run)
        return datetime.fromisoformat(row["at"] if row else now)

    def mark_run(self, run: str) -> None:
        """Write down that a run of the schedule began now."""
        self._write("INSERT OR REPLACE INTO clock VALUES (?, ?)", run, _text(datetime.now(UTC)))

    def intend(self, template: Template) -> None:
        """Write down that a template is about to be published, so that a crash loses no file."""
        self._put(template, published=False)

    def record(self, template: Template) -> None:
        """Write down a published template, replacing the same name of the same reference."""
        self._put(template, published=True)

    def _put(self, template: Template, *, published: bool) -> None:
        self._write(
            "INSERT OR REPLACE INTO templates VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            template.target,
            template.name,
            str(template.reference),
            template.format,
            str(template.platform),
            str(template.digest),
            str(template.manifest_digest),
            str(template.config_digest),
            json.dumps([str(one) for one in template.diff_ids]),
            str(template.file_digest),
            template.size,
            _text(template.created),
            json.dumps(template.volumes),
            template.syncd_version,
            template.pinned,
            published,
        )

    def forget(self, target: str, name: str, reference: Reference | None = None) -> None:
        """Strike a template that is gone, or that one reference does not mean any more."""
        self._write(
            "DELETE FROM templates WHERE target = ?1 AND name = ?2 "
            "AND (?3 IS NULL OR reference = ?3)",
            target,
            name,
            None if reference is None else str(reference),
        )

    def templates(
        self, reference: Reference | None = None, target: str | None = None
    ) -> list[Template]:
        """Return published templates, newest first: all, or of one reference, or one target."""
        rows = self._all(
            "SELECT * FROM templates WHERE published AND (?1 IS NULL OR reference = ?1) "
            "AND (?2 IS NULL OR target = ?2) ORDER BY created DESC, rowid DESC",
            None if reference is None else str(reference),
            target,
        )
        return [_template(row) for row in rows]

    def made(self, target: str, name: str) -> Template | None:
        """Return what syncd published, or meant to publish, under a name, or None."""
        row = self._one(
            "SELECT * FROM templates WHERE target = ? AND name = ? ORDER BY published DESC",
            target,
            name,
        )
        return _template(row) if row else None

    def pin(self, volume: str, *, pinned: bool) -> bool:
        """Let retention keep a template for ever, or no more; return whether it is known."""
        found = [one for one in self.templates() if volume in one.volumes]
        for one in found:
            self._put(replace(one, pinned=pinned), published=True)
        return bool(found)

    def expire(self) -> None:
        """Drop deliveries and finished jobs that are older than 90 days."""
        before = _text(datetime.now(UTC) - _REMEMBERED)
        with self._transaction() as db:
            db.execute("DELETE FROM deliveries WHERE received < ?", (before,))
            db.execute("DELETE FROM jobs WHERE created < ? AND state = ?", (before, State.DONE))

    def _migrate(self) -> None:
        with self._transaction() as db:
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(_SCHEMA):
                raise LedgerError(
                    f"the ledger {self._path} is of schema {version}, newer than this syncd knows",
                    "install the syncd that wrote it, or a newer one",
                )
            for statement in ";".join(_SCHEMA[version:]).split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(_SCHEMA)}")

    def _one(self, sql: str, *values: object) -> sqlite3.Row | None:
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._sound():
            return self._db.execute(sql, values).fetchall()

    def _write(self, sql: str, *values: object) -> None:
        with self._transaction() as db:
            db.execute(sql, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._sound():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as exc:
                raise LedgerError(
                    f"the ledger {self._path} cannot be used: {exc}",
                    "check its disk, its owner and its free space",
                ) from exc


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _record(row: sqlite3.Row) -> JobRecord:
    outcome = None
    if row["result"]:
        outcome = Outcome(Result(row["result"]), row["message"], tuple(json.loads(row["volumes"])))
    return JobRecord(
        SyncJob(
            Reference.parse(row["reference"]),
            Cause(row["cause"]),
            row["id"],
            datetime.fromisoformat(row["created"]),
        ),
        State(row["state"]),
        _moment(row["started"]),
        _moment(row["finished"]),
        outcome,
    )


def _template(row: sqlite3.Row) -> Template:
    return Template(
        name=row["name"],
        target=row["target"],
        reference=Reference.parse(row["reference"]),
        format=Format(row["format"]),
        platform=Platform.parse(row["platform"]),
        digest=Digest.parse(row["digest"]),
        manifest_digest=Digest.parse(row["manifest_digest"]),
        config_digest=Digest.parse(row["config_digest"]),
        diff_ids=tuple(Digest.parse(one) for one in json.loads(row["diff_ids"])),
        file_digest=Digest.parse(row["file_digest"]),
        size=row["size"],
        created=datetime.fromisoformat(row["created"]),
        volumes=tuple(json.loads(row["volumes"])),
        syncd_version=row["syncd_version"],
        pinned=bool(row["pinned"]),
    )
