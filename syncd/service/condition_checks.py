"""What `syncd check` reads from the ledger: watched tags that fail or are missing, and sweeps.

Pure.  Nobody is asked: it is what the daemon found at its last look, so that a check tells what the
daemon meets, not what the shell does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from syncd.config import Config
from syncd.sync import Condition, Lack, Status
from syncd.targets import CheckResult

SWEEPS_MISSED = 3
"""How many sweeps have to be missed before that is told; one may take its time."""


def condition_results(
    config: Config, conditions: Iterable[Condition], swept: datetime | None, now: datetime
) -> Iterator[CheckResult]:
    """Yield what is wrong with what is watched, what is in order, and whether sweeps go on.

    `swept` is when the last sweep began; the first start of the daemon counts as one, and before
    that it is None: then there is nothing to tell.
    """
    rows = list(conditions)
    for row in rows:
        yield from _of(config, row, now)
    in_order = sum(row.status is Status.OK for row in rows)
    if in_order:
        yield CheckResult(True, "watched tags", f"{in_order} in order at the last look")
    if swept is not None:
        yield _sweep(config.schedule.sweep, swept, now)


def _of(config: Config, row: Condition, now: datetime) -> Iterator[CheckResult]:
    """Yield what is wrong with a watched tag in a target."""
    reference, target = row.place.reference, row.place.target
    subject = (
        f"tag {reference} in {target}" if reference.tag else f"tags of {reference} in {target}"
    )
    lasting = f"for {_span(now - row.since)}"
    if row.status is Status.FAILING:
        tries = f"{row.tries} {'try' if row.tries == 1 else 'tries'}"
        yield CheckResult(False, subject, f"failing {lasting}, {tries}: {row.reason}")
    elif row.lack is Lack.FILE:
        yield CheckResult(False, subject, f"its file has been missing {lasting}: {row.reason}")
    elif row.lack is Lack.TAG and _by_name(config, row):
        yield CheckResult(
            False, subject, f"the registry has had no such tag {lasting}; is it misspelt?"
        )


def _by_name(config: Config, row: Condition) -> bool:
    """Tell whether a tag is watched by its name: one that came by a pattern may go again."""
    images = config.images_of(row.place.reference)
    return any(row.place.reference.tag in image.fixed_tags for image in images)


def _sweep(every: timedelta | None, swept: datetime, now: datetime) -> CheckResult:
    subject, ago = "last sweep", f"began {_span(now - swept)} ago"
    if every is None:
        return CheckResult(True, subject, 'schedule.sweep is "off"')
    if now - swept > SWEEPS_MISSED * every:
        hint = "does the daemon run (systemctl status syncd)? its log says what keeps it"
        return CheckResult(False, subject, f"{ago}, and is due every {_span(every)}: {hint}")
    return CheckResult(True, subject, ago)


def _span(span: timedelta) -> str:
    """Return a span as people say it, in its largest unit that fits at least twice."""
    seconds = max(int(span.total_seconds()), 0)
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
