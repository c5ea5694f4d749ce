"""The end of a job, written down and counted in one transaction.

So the totals of jobs are exact: what ended is counted once, whichever process ran it and whatever
happens next.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from syncd.oci import Reference
from syncd.sync.job import Outcome, State
from syncd.sync.ledger_rows import text_of
from syncd.sync.total_rows import ADD, IMAGE, JOBS, REPOSITORY

_END = (
    "UPDATE jobs SET state = ?, finished = ?, result = ?, message = ?, volumes = ?, warnings = ?, "
    "fetched = ?, saved = ? WHERE id = ?"
)


def end_job(db: Any, job: str, outcome: Outcome) -> None:
    """Write down how a job ended, within the transaction of `db`.

    A job that ended before is not counted again, and its last end counts.
    """
    row = db.execute("SELECT reference, cause, state FROM jobs WHERE id = ?", (job,)).fetchone()
    if row is not None and row["state"] != State.DONE:
        labels = (row["cause"], outcome.result, _subject(row["reference"]))
        db.execute(ADD, (JOBS, json.dumps(labels), 1.0))
    values = (
        State.DONE,
        text_of(datetime.now(UTC)),
        outcome.result,
        _text(outcome.message),
        json.dumps(outcome.volumes),
        json.dumps([*map(_text, outcome.warnings)]),
        *outcome.layers,
        job,
    )
    db.execute(_END, values)


def _text(sentence: str) -> str:
    """Return a sentence as text: it may quote a file's name, which may be any bytes (PEP 383)."""
    return sentence.encode("utf-8", "backslashreplace").decode()


def _subject(text: str) -> str:
    """Return what a job with this reference looks at."""
    reference = Reference.parse(text)
    return IMAGE if reference.tag or reference.digest else REPOSITORY
