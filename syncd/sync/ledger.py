"""The ledger: deliveries, jobs and templates, on disk before anybody is told of them.

Every commit is flushed: what was acknowledged survives a power failure.  Blocking: the event loop
asks the ledger through an executor of its own, and threads ask it directly.  It never holds a
secret.

Jobs and templates are ordered by a sequence number, which each gets when it is written down: the
clock of a host may step back, and what was written last is the newest all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from syncd.oci import Reference
from syncd.sync.attestation_rows import AttestationRows
from syncd.sync.condition_rows import ConditionRows
from syncd.sync.container_rows import ContainerRows
from syncd.sync.database import Connection, Database
from syncd.sync.figure_rows import FigureRows
from syncd.sync.job import ABANDONED, Cause, JobRecord, Outcome, State, SyncJob
from syncd.sync.job_board import JobBoard
from syncd.sync.job_end import end_job
from syncd.sync.job_log_rows import JobLogRows
from syncd.sync.ledger_rows import SCHEMA, job_record, template_of, text_of
from syncd.sync.notification_rows import NotificationRows
from syncd.sync.process import runs, this_process
from syncd.sync.proof_rows import ProofRows
from syncd.sync.replacement_rows import ReplacementRows
from syncd.sync.tally import Tally
from syncd.sync.template import Intention, Template
from syncd.sync.total_rows import TotalRows
from syncd.sync.vouched_rows import VouchedRows

_REMEMBERED = timedelta(days=90)


class Ledger(Database):
    """The ledger in one file; several processes may use it at a time.

    A row that cannot be read is passed over, and told once: it keeps nobody from the others.
    `conditions` are the rows of what is true of each watched tag, `containers` those of what syncd
    made, `logs` those of jobs' lines, `notifications` those of what people are told, `proofs` those
    of what files were found to be, `replacements` those of newer images under containers, and
    `totals` those of what was ever counted, to which `tally` adds.  `vouched` are the rows of whose
    signatures images passed with, `attestations` those of what images say of themselves.  `figures`
    gives what metrics need of the other rows, and `board` shows jobs to those who look on.
    """

    def __init__(self, path: Path) -> None:
        self.conditions = ConditionRows(self._all, self._read, self._commit)
        self.containers = ContainerRows(self._all, self._commit)
        self.notifications = NotificationRows(self._all, self._read, self._commit)
        self.proofs = ProofRows(self._all, self._read, self._write)
        self.replacements = ReplacementRows(self._all, self._read, self._write)
        self.totals = TotalRows(self._all, self._read, self._commit)
        self.figures = FigureRows(self._all, self._read)
        self.board = JobBoard(self._all, self._read)
        self.logs = JobLogRows(self._all, self._read, self._commit)
        self.vouched = VouchedRows(self._all, self._read, self._write)
        self.attestations = AttestationRows(self._all, self._read, self._commit)
        super().__init__(path, SCHEMA)
        try:
            self.tally = Tally(self.totals)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seen(self, delivery: str) -> list[str] | None:
        """Return the job ids that a delivery led to, or None if it is new."""
        rows = self._all("SELECT jobs FROM deliveries WHERE id = ?", delivery)
        jobs = self._read(rows, lambda row: list(json.loads(row["jobs"]))) or [[]]
        return jobs[0] if rows else None

    def accept(
        self, new: Iterable[SyncJob], deliveries: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Write down new jobs, and deliveries by id with all the job ids they led to, at once."""
        now = text_of(datetime.now(UTC))
        jobs = [
            (
                job.id,
                str(job.reference),
                job.cause,
                State.QUEUED,
                text_of(job.created),
                this_process() if job.cause is Cause.CLI else "",
            )
            for job in new
        ]
        received = [(one, now, json.dumps(list(ids))) for one, ids in (deliveries or {}).items()]

        def write(db: Connection) -> None:
            db.executemany(
                "INSERT INTO jobs (id, reference, cause, state, created, process, seq) "
                "VALUES (?, ?, ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) + 1 FROM jobs))",
                jobs,
            )
            db.executemany("INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?)", received)

        self._commit(write)

    def start(self, job: str) -> None:
        """Write down that a job runs in this process, before it does, and how often it began to."""
        self._write(
            "UPDATE jobs SET state = ?, started = ?, process = ?, attempts = attempts + 1 "
            "WHERE id = ?",
            State.RUNNING,
            text_of(datetime.now(UTC)),
            this_process(),
            job,
        )

    def finish(self, job: str, outcome: Outcome) -> None:
        """Write down how a job ended."""
        self._commit(lambda db: end_job(db, job, outcome))

    def leave(self, running: Iterable[str]) -> None:
        """Write down that this process ends: these running jobs of it wait again.

        Their last attempt does not count.  The jobs of a command end with the command.
        """
        mine = self._of_commands(lambda process: process == this_process())

        def write(db: Connection) -> None:
            db.executemany(
                "UPDATE jobs SET state = ?, attempts = attempts - 1 WHERE id = ? AND state = ?",
                [(State.QUEUED, job, State.RUNNING) for job in running],
            )
            for job in mine:
                end_job(db, job.id, ABANDONED)

        self._commit(write)

    def end_abandoned(self) -> list[SyncJob]:
        """End the jobs of commands whose process is gone; return them."""
        abandoned = self._of_commands(lambda process: not runs(process))
        for job in abandoned:
            self.finish(job.id, ABANDONED)
        return abandoned

    def _of_commands(self, wanted: Callable[[str], bool]) -> list[SyncJob]:
        """Return the unfinished jobs of those commands whose process is wanted."""
        rows = self._all("SELECT * FROM jobs WHERE state != ? AND cause = ?", State.DONE, Cause.CLI)
        return [
            record.job
            for record in self._read([r for r in rows if wanted(r["process"])], job_record)
        ]

    def unfinished(self, attempts: int = 0) -> list[SyncJob]:
        """Return the jobs that were queued or running when the daemon ended, oldest first.

        With `attempts`, only those that ran then and had begun at least so often.  Those of the
        command line belong to the process that typed them, and are not among them.
        """
        rows = self._all(
            "SELECT * FROM jobs WHERE state != ?1 AND cause != ?2 "
            "AND (?3 = 0 OR (state = ?4 AND attempts >= ?3)) ORDER BY seq",
            State.DONE,
            Cause.CLI,
            attempts,
            State.RUNNING,
        )
        return [record.job for record in self._read(rows, job_record)]

    def job(self, job: str) -> JobRecord | None:
        """Return one job."""
        rows = self._all("SELECT * FROM jobs WHERE id = ?", job)
        return next(iter(self._read(rows, job_record)), None)

    def jobs(self, limit: int) -> list[JobRecord]:
        """Return the newest jobs, newest first."""
        rows = self._all("SELECT * FROM jobs ORDER BY seq DESC LIMIT ?", limit)
        return self._read(rows, job_record)

    def last_run(self, run: str, now: datetime | None = None) -> datetime:
        """Return when a run of the schedule was last marked, marking it now if it never was."""
        now = now or datetime.now(UTC)
        self._write("INSERT OR IGNORE INTO clock VALUES (?, ?)", run, text_of(now))
        rows = self._all("SELECT at FROM clock WHERE run = ?", run)
        found = self._read(rows, lambda row: datetime.fromisoformat(row["at"]).astimezone(UTC))
        return found[0] if found else now

    def mark_run(self, run: str, at: datetime | None = None) -> None:
        """Write down that a run of the schedule was done, now or at another time."""
        self._write(
            "INSERT OR REPLACE INTO clock VALUES (?, ?)", run, text_of(at or datetime.now(UTC))
        )

    def intend(self, template: Template) -> None:
        """Write down that a template is about to be published, so that a crash loses no file."""
        self._put(template, published=False)

    def record(self, template: Template) -> None:
        """Write down a published template, replacing the same name of the same reference.

        It is the newest of its reference from now on, whatever its time says.
        """
        self._put(template, published=True)

    def _put(self, template: Template, *, published: bool) -> None:
        self._write(
            "INSERT OR REPLACE INTO templates VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?, "
            "(SELECT coalesce(max(seq), 0) + 1 FROM templates), ?)",
            template.target,
            template.name,
            str(template.reference),
            template.format,
            str(template.platform),
            str(template.digest),
            str(template.manifest_digest),
            str(template.config_digest),
            json.dumps([str(diff_id) for diff_id in template.diff_ids]),
            str(template.file_digest),
            template.size,
            text_of(template.created),
            json.dumps(template.volumes),
            template.syncd_version,
            template.pinned,
            published,
            template.private,
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
        """Return published templates: all, or of one reference, or of one target.

        The template that was recorded last comes first; `created` does not count.
        """
        rows = self._all(
            "SELECT * FROM templates WHERE published AND (?1 IS NULL OR reference = ?1) "
            "AND (?2 IS NULL OR target = ?2) ORDER BY seq DESC",
            None if reference is None else str(reference),
            target,
        )
        return self._read(rows, template_of)

    def made(self, target: str, name: str) -> Template | None:
        """Return what syncd published, or meant to publish, under a name, or None."""
        rows = self._all(
            "SELECT * FROM templates WHERE target = ? AND name = ? ORDER BY published DESC",
            target,
            name,
        )
        return next(iter(self._read(rows, template_of)), None)

    def intentions(self, target: str) -> list[Intention]:
        """Return what was to be published in a target and did not get that far.

        What a running job may be publishing just now is not among it.
        """
        rows = self._all(
            "SELECT * FROM templates WHERE NOT published AND target = ? AND reference NOT IN "
            "(SELECT reference FROM jobs WHERE state = ?) ORDER BY seq",
            target,
            State.RUNNING,
        )
        return self._read(rows, lambda row: Intention(template_of(row), row["seq"]))

    def complete(self, intention: Intention, volumes: Sequence[str]) -> bool:
        """Write down that a template is published after all, and is the oldest of all.

        Return False, and change nothing, where a job took the template up meanwhile.
        """
        return self._settle(
            "UPDATE templates SET published = 1, volumes = ?, "
            "seq = (SELECT min(seq) - 1 FROM templates) WHERE",
            intention,
            json.dumps(list(volumes)),
        )

    def strike(self, intention: Intention) -> bool:
        """Strike a template that never was; return as `complete` does."""
        return self._settle("DELETE FROM templates WHERE", intention)

    def _settle(self, statement: str, intention: Intention, *values: object) -> bool:
        template, changed = intention.template, 0
        key = (template.target, template.name, str(template.reference), intention.seq)

        def write(db: Connection) -> None:
            nonlocal changed
            changed = db.execute(
                f"{statement} target = ? AND name = ? AND reference = ? AND seq = ?",
                (*values, *key),
            ).rowcount

        self._commit(write)
        return bool(changed)

    def pin(self, volume: str, *, pinned: bool) -> bool:
        """Let retention keep a template for ever, or no more; return whether it is known."""
        known = [template for template in self.templates() if volume in template.volumes]
        for template in known:
            self._write(
                "UPDATE templates SET pinned = ? WHERE target = ? AND name = ? AND reference = ?",
                pinned,
                template.target,
                template.name,
                str(template.reference),
            )
        return bool(known)

    def expire(self) -> None:
        """Drop deliveries, requests, finished jobs and unused vouchers of 90 days ago.

        Also drop attestations of images without a template, and cut SQLite's log.
        """
        before = text_of(datetime.now(UTC) - _REMEMBERED)

        def drop(db: Connection) -> None:
            db.execute("DELETE FROM deliveries WHERE received < ?", (before,))
            db.execute("DELETE FROM requests WHERE received < ?", (before,))
            db.execute(
                "DELETE FROM vouched WHERE at < ? AND digest NOT IN "
                "(SELECT digest FROM templates UNION SELECT manifest_digest FROM templates)",
                (before,),
            )
            db.execute(
                "DELETE FROM attestations WHERE manifest_digest NOT IN (SELECT manifest_digest "
                "FROM templates) AND NOT EXISTS (SELECT 1 FROM jobs WHERE state = ?)",
                (State.RUNNING,),  # whose template is not there yet
            )
            db.execute("DELETE FROM jobs WHERE created < ? AND state = ?", (before, State.DONE))

        self._commit(drop)
        self.logs.expire()
        self._shorten_log()
