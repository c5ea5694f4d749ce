"""What `activity` promises: who looks on learns what changed and how far jobs are, at no cost."""

from __future__ import annotations

import asyncio

import pytest

from syncd.errors import StoppedError
from syncd.oci.reference import Reference
from syncd.progress import Advance, Silence
from syncd.sync import activity
from syncd.sync.activity import Activity, JobProgress
from syncd.sync.job import Cause, SyncJob

REPOSITORY = Reference.parse("a.b/c")
JOB = SyncJob(REPOSITORY.with_tag("a"), Cause.API)
OTHER = SyncJob(REPOSITORY.with_tag("b"), Cause.API)


def test_bytes_of_all_parts() -> None:
    """Layers that are fetched and layers at hand are one step, whose bytes add up."""
    seen = Activity()
    seen.started(JOB)
    progress = seen.watch(JOB.reference, Silence())
    first, second = progress.begin("layer", "one", 100), progress.begin("cached", "two", 50)
    first(30)
    second(50)
    first(5)
    assert seen.progress() == {JOB.id: JobProgress("layer", "two", 85, 150)}
    progress.begin("flatten", "file", None)(7)
    assert seen.progress() == {JOB.id: JobProgress("flatten", "file", 7, None)}


def test_part_that_begins_anew() -> None:
    """A layer that is read again after a fault counts once."""
    seen = Activity()
    seen.started(JOB)
    progress = seen.watch(JOB.reference, Silence())
    progress.begin("layer", "one", 100)(90)
    progress.begin("layer", "one", 100)(10)
    assert seen.progress() == {JOB.id: JobProgress("layer", "one", 10, 100)}


def test_passed_on() -> None:
    """Another progress hears all of it, too."""
    heard: list[tuple[str, str, int | None] | int] = []

    class Ear:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            heard.append((step, subject, total))
            return heard.append

    Activity().watch(JOB.reference, Ear()).begin("layer", "one", 1)(4)
    assert heard == [("layer", "one", 1), 4]


def test_over() -> None:
    """A job that has ended has no progress, and the next one of its tag begins at nothing."""
    seen = Activity()
    seen.started(JOB)
    late = seen.watch(JOB.reference, Silence()).begin("layer", "one", 100)
    seen.ended(JOB)
    assert seen.progress() == {}
    again = SyncJob(JOB.reference, Cause.API)
    seen.started(again)
    late(50)
    assert seen.progress() == {}
    seen.ended(JOB)
    seen.watch(JOB.reference, Silence()).begin("layer", "one", 100)(1)
    assert seen.progress() == {again.id: JobProgress("layer", "one", 1, 100)}


def test_cancelled() -> None:
    """The work of a cancelled job ends at its next byte, and that of no other job."""
    seen = Activity()
    seen.started(JOB)
    seen.started(OTHER)
    advance = seen.watch(JOB.reference, Silence()).begin("layer", "one", 100)
    others = seen.watch(OTHER.reference, Silence()).begin("layer", "one", 100)
    seen.cancel(JOB)
    with pytest.raises(StoppedError, match="cancelled"):
        advance(1)
    others(1)
    seen.ended(JOB)
    seen.started(SyncJob(JOB.reference, Cause.API))
    seen.watch(JOB.reference, Silence()).begin("layer", "one", 100)(1)
    with pytest.raises(StoppedError):
        advance(1)


def test_what_changed() -> None:
    """Each job that changed since a revision is named once, in the order of the changes."""
    seen = Activity()
    seen.changed(JOB)
    revision = seen.revision
    seen.started(OTHER)
    seen.started(JOB)
    seen.ended(OTHER)
    assert seen.since(revision) == [JOB.id, OTHER.id]
    assert seen.since(seen.revision) == []


def test_too_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who missed more changes than are remembered is told so, and begins anew."""
    monkeypatch.setattr(activity, "CHANGES_MAX", 3)
    seen = Activity()
    for number in range(4):
        seen.changed(SyncJob(REPOSITORY.with_tag(f"t{number}"), Cause.API))
    assert seen.since(0) is None
    assert len(seen.since(1) or ()) == 3


async def test_waiting() -> None:
    """Who waits is woken by the next change, and not before."""
    seen = Activity()
    seen.changed(JOB)
    await asyncio.wait_for(seen.wait(0), 5)
    waiting = asyncio.create_task(seen.wait(seen.revision))
    done, _ = await asyncio.wait({waiting}, timeout=0.02)
    assert not done
    seen.changed(OTHER)
    await asyncio.wait_for(waiting, 5)
