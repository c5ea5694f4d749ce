"""The way of a replacement: each step in the ledger before it is done, and back when one fails.

A process may die at any instruction.  `resume` then looks at the container itself: with the new
root it goes on to the end, with the old root it goes back, so that the container is either wholly
new or wholly as it was.  One process at a time works on a container: the kernel holds its lock
(flock(2)), and releases it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from syncd.errors import (
    PublishError,
    RequestError,
    StillRunningError,
    StorageError,
    SyncdError,
    TargetUnavailableError,
)
from syncd.files import make_folder, open_own
from syncd.progress import Advance, Progress
from syncd.sync.ledger import Ledger
from syncd.sync.readiness import PAUSE
from syncd.sync.replacement import UNFINISHED, Replacement, ReplacementState
from syncd.targets import RootSwaps, SwapStep

log = structlog.stdlib.get_logger()

_RESUME = "syncd replace --resume finishes or undoes it, and so does the next start of syncd"


class SwapRun:
    """Carries replacements out.  Blocking; safe to use from several threads."""

    def __init__(self, ledger: Ledger, locks: Callable[[], Path]) -> None:
        self._ledger = ledger
        self._locks = locks

    def carry_out(self, new: Replacement, roots: RootSwaps, progress: Progress) -> Replacement:
        """Do every step of a replacement; return it as it ended.

        When a step fails, the container goes back to its old root, and PublishError says why.
        Where even that is not possible now, TargetUnavailableError says so, and the replacement
        stays unfinished in the ledger.  Raise StillRunningError while another replacement of the
        same container is under way.
        """
        with self._alone(new):
            for other in self._ledger.replacements.of(*UNFINISHED):
                if (other.target, other.swap.vmid) == (new.target, new.swap.vmid):
                    raise StillRunningError(
                        f"an earlier replacement of container {new.swap.vmid} is not finished",
                        _RESUME,
                    )
            return self._forward(new, roots, progress, new.swap.steps)

    def resume(self, left: Replacement, roots: RootSwaps, progress: Progress) -> Replacement:
        """Finish or undo what a process left; return it as it ended.  Raise as `carry_out` does."""
        with self._alone(left):
            now = [
                found for found in self._ledger.replacements.of(*UNFINISHED) if found.id == left.id
            ]
            if not now:
                return left  # another process has ended it meanwhile
            (left,) = now
            guest = roots.guest(left.swap.vmid)
            if guest is None:
                if roots.exists(left.swap.vmid):
                    raise PublishError(
                        f"container {left.swap.vmid} is not shown to the token now",
                        "the token needs VM.Audit on it",
                    )
                return self._end(replace(left, reason="the container is gone"))
            left = replace(left, swap=replace(left.swap, node=guest.node))
            if left.state is ReplacementState.RETURNING or not roots.is_swapped(left.swap):
                return self._back(left, roots, progress, left.reason or "it was broken off")
            steps = [step for step in left.swap.steps if list(SwapStep).index(step) > _SWAPPED]
            try:
                return self._forward(left, roots, progress, steps)
            except PublishError:
                for ended in self._ledger.replacements.of(ReplacementState.UNDONE):
                    if ended.id == left.id:  # it went back, which is an end
                        return ended
                raise

    def remove_old(self, done: Replacement, roots: RootSwaps) -> Replacement:
        """Destroy the old root of a replacement, and return the replacement as it is then."""
        with self._alone(done):
            guest = roots.guest(done.swap.vmid)
            if guest is not None:
                roots.remove_old(replace(done.swap, node=guest.node))
            return self._put(replace(done, state=ReplacementState.CLOSED))

    def _forward(
        self, going: Replacement, roots: RootSwaps, progress: Progress, steps: Sequence[SwapStep]
    ) -> Replacement:
        try:
            for step in steps:
                going = self._put(replace(going, step=step))
                log.info("replacing", vmid=going.swap.vmid, step=step)
                advance = progress.begin("replace", f"{going.swap.vmid}: {step.meaning}", None)
                if step is SwapStep.READY:
                    _wait(going, roots, advance)
                else:
                    going = replace(going, swap=roots.do(step, going.swap, advance))
        except (PublishError, RequestError) as exc:
            if going.step is SwapStep.PROTECT:  # all is done but this, so nothing goes back
                raise self._stuck(going, exc) from exc
            kept = _kept_snapshot(going)
            self._back(going, roots, progress, f"{exc}; {kept}" if kept else str(exc))
            raise PublishError(
                f"container {going.swap.vmid} is as it was, since the replacement failed: {exc}",
                kept,
            ) from exc
        self._ledger.containers.record(going.target, going.swap.vmid)  # its root is of our making
        return self._put(going.end(ReplacementState.REPLACED))

    def _back(
        self, failed: Replacement, roots: RootSwaps, progress: Progress, reason: str
    ) -> Replacement:
        failed = self._put(replace(failed, state=ReplacementState.RETURNING, reason=reason))
        try:
            subject = f"{failed.swap.vmid}: go back to the old root"
            advance = progress.begin("replace", subject, None)
            roots.undo(failed.swap, advance, keep_snapshot=bool(_kept_snapshot(failed)))
        except (PublishError, RequestError) as exc:
            raise self._stuck(failed, exc) from exc
        ended = self._end(failed)
        log.warning("went back", vmid=failed.swap.vmid, reason=reason)
        return ended

    def _stuck(self, failed: Replacement, exc: SyncdError) -> TargetUnavailableError:
        reason = f" after {failed.reason}" if failed.reason else ""
        return TargetUnavailableError(
            f"the replacement of container {failed.swap.vmid} is not finished{reason}: {exc}",
            _RESUME,
        )

    def _end(self, failed: Replacement) -> Replacement:
        return self._put(failed.end(ReplacementState.UNDONE))

    def _put(self, replacement: Replacement) -> Replacement:
        self._ledger.replacements.put(replacement)
        return replacement

    @contextmanager
    def _alone(self, replacement: Replacement) -> Iterator[None]:
        """Hold the container's lock; raise StillRunningError while another process holds it."""
        file = self._locks() / f"replace-{replacement.target}-{replacement.swap.vmid}"
        try:
            make_folder(file.parent)
            descriptor = open_own(file, os.O_RDWR)
        except OSError as exc:
            raise StorageError(f"the lock {file} cannot be used: {exc.strerror}") from exc
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise StillRunningError(
                    f"container {replacement.swap.vmid} is being replaced by another process",
                    "wait until that has ended",
                ) from exc
            yield
        finally:
            os.close(descriptor)


_SWAPPED = list(SwapStep).index(SwapStep.SWAP)


def _kept_snapshot(failed: Replacement) -> str:
    """Return what a person is told of the snapshot that outlives the way back; empty without one.

    Software of the new root that was started may have written into data volumes, and nobody else
    knows whether that is to be taken back.
    """
    swap = failed.swap
    if not swap.snapshot or failed.step not in (SwapStep.START, SwapStep.READY):
        return ""
    return (
        f"what the new software wrote into data volumes is taken back by: pct rollback {swap.vmid} "
        f"{swap.snapshot}; else remove the snapshot: pct delsnapshot {swap.vmid} {swap.snapshot}"
    )


def _wait(going: Replacement, roots: RootSwaps, advance: Advance) -> None:
    """Wait until the container is ready; raise PublishError once that took too long."""
    until = time.monotonic() + going.readiness.timeout
    while lack := going.readiness.lack(roots, going.swap):
        if time.monotonic() > until:
            raise PublishError(
                f"the container was not ready after {going.readiness.timeout:g} s: {lack}"
            )
        advance(0)
        time.sleep(PAUSE)
