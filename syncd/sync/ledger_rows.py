"""The tables of the ledger, and what their rows mean.

Pure text and values: the ledger asks the database, and this module never does.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Protocol

from syncd.formats import Format
from syncd.oci import Digest, Platform, Reference
from syncd.sync.job import Cause, JobRecord, LayerBytes, Outcome, Result, State, SyncJob
from syncd.sync.template import Template

SCHEMA = (
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
    """
    ALTER TABLE jobs ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET seq = old.seq FROM (
        SELECT id, row_number() OVER (ORDER BY created, rowid) AS seq FROM jobs
    ) AS old WHERE jobs.id = old.id;
    CREATE INDEX jobs_by_seq ON jobs (seq);
    ALTER TABLE templates ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
    UPDATE templates SET seq = old.seq FROM (
        SELECT rowid AS id, row_number() OVER (ORDER BY created, rowid) AS seq FROM templates
    ) AS old WHERE templates.rowid = old.id;
    CREATE INDEX templates_by_seq ON templates (seq);
    """,
    """
    CREATE TABLE conditions (
        reference TEXT NOT NULL, target TEXT NOT NULL, status TEXT NOT NULL, since TEXT NOT NULL,
        checked TEXT NOT NULL, reason TEXT NOT NULL, passing INTEGER NOT NULL,
        tries INTEGER NOT NULL, next_try TEXT, updated TEXT, digest TEXT, volumes TEXT NOT NULL,
        lack TEXT, PRIMARY KEY (reference, target)
    );
    CREATE INDEX conditions_by_next_try ON conditions (next_try);
    """,
    """
    ALTER TABLE jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN process TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE proofs (
        target TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
        file_digest TEXT NOT NULL, state TEXT NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY (target, name)
    );
    """,
    """
    CREATE TABLE replacements (
        id TEXT PRIMARY KEY, target TEXT NOT NULL, vmid INTEGER NOT NULL, state TEXT NOT NULL,
        step TEXT NOT NULL, swap TEXT NOT NULL, wait_for TEXT NOT NULL, timeout REAL NOT NULL,
        keep INTEGER, ended TEXT, reason TEXT NOT NULL
    );
    CREATE UNIQUE INDEX replacements_under_way ON replacements (target, vmid)
        WHERE state IN ('open', 'returning');
    """,
    """
    CREATE TABLE containers (
        target TEXT NOT NULL, vmid INTEGER NOT NULL, created TEXT NOT NULL,
        PRIMARY KEY (target, vmid)
    );
    CREATE TABLE requests (
        key TEXT PRIMARY KEY, body TEXT NOT NULL, mark TEXT NOT NULL, received TEXT NOT NULL,
        answer TEXT
    );
    """,
    """
    CREATE TABLE told (
        reference TEXT NOT NULL, target TEXT NOT NULL, failing INTEGER NOT NULL,
        digest TEXT NOT NULL, since TEXT NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY (reference, target)
    );
    INSERT INTO told
        SELECT reference, target, status = 'failing', coalesce(digest, ''), since, since
        FROM conditions WHERE digest IS NOT NULL OR status = 'failing';
    CREATE TABLE notifications (
        number INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, body TEXT NOT NULL,
        severity TEXT NOT NULL, made TEXT NOT NULL, marks TEXT NOT NULL DEFAULT '[]',
        tries INTEGER NOT NULL DEFAULT 0, tried TEXT, fault TEXT NOT NULL DEFAULT ''
    );
    """,
    """
    CREATE TABLE totals (
        name TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (name, labels)
    );
    """,
    """
    CREATE TABLE job_logs (job TEXT PRIMARY KEY, lines TEXT NOT NULL);
    """,
    """
    ALTER TABLE jobs ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
    """,
    """
    CREATE TABLE vouched (
        repository TEXT NOT NULL, digest TEXT NOT NULL, manifest_digest TEXT NOT NULL,
        policy TEXT NOT NULL, vouchers TEXT NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY (repository, digest, manifest_digest, policy)
    );
    CREATE TABLE attestations (
        repository TEXT NOT NULL, digest TEXT NOT NULL, manifest_digest TEXT NOT NULL,
        position INTEGER NOT NULL, predicate TEXT NOT NULL, place TEXT NOT NULL,
        size INTEGER NOT NULL, content BLOB NOT NULL,
        PRIMARY KEY (repository, digest, manifest_digest, position)
    );
    """,
    """
    ALTER TABLE templates ADD COLUMN private INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE jobs ADD COLUMN fetched INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN saved INTEGER NOT NULL DEFAULT 0;
    """,
)
"""Each entry brings the schema from its position to the next; `user_version` counts them."""


class Row(Protocol):
    """A row of a table, whose columns are found by name."""

    def __getitem__(self, column: str, /) -> Any:
        """Return a column's value."""


def text_of(moment: datetime) -> str:
    """Return how the ledger writes a moment: ISO 8601 in UTC, of a fixed length."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def moment_of(text: str | None) -> datetime | None:
    """Return the moment that `text_of` wrote, or None where none is written."""
    return datetime.fromisoformat(text) if text else None


def job_record(row: Row) -> JobRecord:
    """Return the job of a row; raise SyncdError, ValueError or TypeError if the row is none."""
    outcome = None
    if row["result"]:
        outcome = Outcome(
            Result(row["result"]),
            row["message"],
            tuple(json.loads(row["volumes"])),
            tuple(json.loads(row["warnings"])),
            layers=LayerBytes(row["fetched"], row["saved"]),
        )
    return JobRecord(
        SyncJob(
            Reference.parse(row["reference"]),
            Cause(row["cause"]),
            row["id"],
            datetime.fromisoformat(row["created"]),
        ),
        State(row["state"]),
        moment_of(row["started"]),
        moment_of(row["finished"]),
        outcome,
    )


def template_of(row: Row) -> Template:
    """Return the template of a row; raise SyncdError, ValueError or TypeError if it is none."""
    return Template(
        name=row["name"],
        target=row["target"],
        reference=Reference.parse(row["reference"]),
        format=Format(row["format"]),
        platform=Platform.parse(row["platform"]),
        digest=Digest.parse(row["digest"]),
        manifest_digest=Digest.parse(row["manifest_digest"]),
        config_digest=Digest.parse(row["config_digest"]),
        diff_ids=tuple(Digest.parse(text) for text in json.loads(row["diff_ids"])),
        file_digest=Digest.parse(row["file_digest"]),
        size=row["size"],
        created=datetime.fromisoformat(row["created"]),
        volumes=tuple(json.loads(row["volumes"])),
        syncd_version=row["syncd_version"],
        pinned=bool(row["pinned"]),
        private=bool(row["private"]),
    )
