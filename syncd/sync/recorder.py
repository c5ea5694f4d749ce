"""Where every way to a watched tag ends: what was found becomes the tag's conditions.

Only what the configuration watches has conditions; a look at anything else leaves none.  A list of
tags that cannot be read is a failure of each tag that the list would have named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime

import structlog

from syncd.config import Config
from syncd.oci import Reference
from syncd.sync.condition_rows import Transition
from syncd.sync.conditions import (
    Condition,
    Failed,
    Finding,
    Gone,
    Lack,
    Place,
    Status,
    condition_after,
)
from syncd.sync.context import Running
from syncd.sync.ledger import Ledger
from syncd.sync.watched import Watched

log = structlog.stdlib.get_logger()

NO_TAG = Gone(Lack.TAG, "the registry lists the repository's tags, and this tag is not among them")
NO_WATCH = Gone(Lack.WATCH, "the configuration does not watch it any more")
OVERTAKEN = Gone(Lack.WATCH, "newer tags have taken its place among the newest that are watched")
NO_IMAGE = Gone(Lack.WATCH, "what it means now is no container image, and only a pattern names it")


def conditions_now(config: Config, rows: Iterable[Condition]) -> list[Condition]:
    """Return the conditions as a configuration sees them, which may watch less than before.

    This writes nothing; a running daemon writes it when it starts and when it reloads.
    """
    now = datetime.now(UTC)
    watched = Watched(config)
    seen = [
        row if row.place in watched else condition_after(row.place, row, NO_WATCH, now)
        for row in rows
    ]
    return [row for row in seen if row is not None]


class ConditionRecorder:
    """Writes conditions.  Blocking; safe to use from several threads.  Raise LedgerError."""

    def __init__(self, running: Running, ledger: Ledger) -> None:
        self._running = running
        self._rows = ledger.conditions
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, in any thread, once a condition is another one than before."""
        self._listeners.append(listener)

    def places(self, reference: Reference) -> tuple[Place, ...]:
        """Return a watched tag in each of its targets; nothing for what is not watched."""
        return self._watched.places_of(reference)

    @property
    def _watched(self) -> Watched:
        return Watched(self._running.config)

    def record(self, found: Iterable[tuple[Reference, Mapping[str, Finding]]]) -> None:
        """Write what was found of each reference in each target, by the target's name."""
        watched = self._watched
        self._write(
            (place, findings[place.target])
            for reference, findings in found
            for place in watched.places_of(reference)
            if place.target in findings
        )

    def given_up(self, reference: Reference, reason: str) -> None:
        """Write that nobody tries to bring a tag up to date any more until the next sweep."""
        self._write((place, Failed(reason, passing=False)) for place in self.places(reference))

    def failing(self) -> set[Reference]:
        """Return the references that are failing somewhere, whoever found it."""
        return {row.place.reference for row in self._rows.all() if row.status is Status.FAILING}

    def failing_by(self, reason: str) -> set[Reference]:
        """Return the references that are failing for this reason somewhere."""
        return {row.place.reference for row in self._rows.all() if row.reason == reason}

    def listed(
        self, repository: Reference, tags: Collection[str], overtaken: Collection[str] = ()
    ) -> None:
        """Write that a list of tags was read: a tag that a pattern named once may be gone.

        Of the `tags` that match, those that are `overtaken` are not watched for now.
        """
        known = [row.place for row in self._by_pattern(repository)]
        self._write((p, NO_TAG) for p in known if p.reference.tag and p.reference.tag not in tags)
        self._write((p, OVERTAKEN) for p in known if p.reference.tag in overtaken)
        self._rows.forget(place for place in known if not place.reference.tag)

    def not_listed(self, repository: Reference, error: Exception) -> None:
        """Write that a list of tags could not be read: a failure of each tag that it named last.

        Where it named none, the failure is the repository's own.  What the list was found to lack,
        or to name beside newer tags, stays as it was found.
        """
        known = {
            row.place: None
            for row in self._by_pattern(repository)
            if row.lack is not Lack.TAG and row.reason not in (OVERTAKEN.reason, NO_IMAGE.reason)
        }
        for place in self._watched.lists_of(repository):
            if not any(row.target == place.target for row in known):
                known[place] = None
        self._write((place, Failed.of(error)) for place in known)

    def passed_over(self, reference: Reference) -> None:
        """Write that a tag that came by a pattern is no image, if anything is known of it."""
        known = [row.place for row in self._by_pattern(reference)]
        self._write((place, NO_IMAGE) for place in known if place.reference == reference)

    def unwatch(self) -> None:
        """Write of each condition that its tag is not watched any more, where that is so."""
        watched = self._watched
        self._write((r.place, NO_WATCH) for r in self._rows.all() if r.place not in watched)

    def unknown(self, references: Iterable[Reference]) -> list[Reference]:
        """Return those watched tags of which nothing is known in one of their targets."""
        known = {row.place for row in self._rows.all() if row.lack is not Lack.WATCH}
        watched = self._watched
        return [tag for tag in references if not known.issuperset(watched.places_of(tag))]

    def _by_pattern(self, repository: Reference) -> list[Condition]:
        """Return the watched rows of a repository that a list of tags has to do with."""
        images = self._running.config.images_of(repository)
        fixed = {tag for image in images for tag in image.fixed_tags}
        rows, watched = self._rows.of(repository), self._watched
        return [r for r in rows if r.place.reference.tag not in fixed and r.place in watched]

    def _write(self, findings: Iterable[tuple[Place, Finding]]) -> None:
        changes = self._rows.write(findings, datetime.now(UTC))
        for change in changes:
            _tell(change)
        if any(_is_news(change) for change in changes):
            for listener in self._listeners:
                listener()


def _tell(change: Transition) -> None:
    """Log a condition whose status is another one than before."""
    before, after = change.before, change.after
    if before is not None and _status(before) == _status(after):
        return
    if before is None and after.status is Status.OK:
        return
    place = {"reference": str(after.place.reference), "target": after.place.target}
    report = log.warning if after.status is Status.FAILING else log.info
    report(after.status.value, **place, reason=after.reason, passing=after.passing)


def _is_news(change: Transition) -> bool:
    """Tell whether a condition has another status or another digest than before."""
    before, after = change.before, change.after
    return before is None or (_status(before), before.digest) != (_status(after), after.digest)


def _status(condition: Condition) -> tuple[Status, Lack | None]:
    return condition.status, condition.lack
