"""What `sync.job` promises: values that tell jobs apart."""

from __future__ import annotations

from datetime import UTC, datetime

from syncd.oci.reference import Reference
from syncd.sync.job import Cause, SyncJob

REFERENCE = Reference.parse("a.b/c:d")


def test_jobs_differ() -> None:
    """Two jobs for one reference are two jobs, made now."""
    one, two = SyncJob(REFERENCE, Cause.API), SyncJob(REFERENCE, Cause.API)
    assert one.id != two.id
    assert one.created <= two.created <= datetime.now(UTC)
