"""What a weekly run left behind, in a few lines: how many tags are in order, and what is not.

Made of conditions and templates, not of the jobs of the run: what counts is what is true after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from syncd.config import Config
from syncd.sync import Condition, Lack, Status, Template, Watched

_NAMED_MAX = 10  # tags that are named


@dataclass(frozen=True, slots=True)
class Summary:
    """How many watched tags there are by status, and how many templates are new since `since`."""

    ok: int
    failing: tuple[str, ...]
    absent: int
    published: int
    since: datetime

    def lines(self) -> list[str]:
        """Return the lines that say so."""
        counts = [f"{self.ok} in order", f"{len(self.failing)} failing"]
        if self.absent:
            counts.append(f"{self.absent} gone from the registry")
        lines = [
            f"weekly run: {', '.join(counts)}; {self.published} published since "
            f"{self.since.astimezone():%Y-%m-%d}"
        ]
        if self.failing:
            more = (
                f" and {len(self.failing) - _NAMED_MAX} more" if self.failing[_NAMED_MAX:] else ""
            )
            lines.append(f"- failing: {', '.join(self.failing[:_NAMED_MAX])}{more}")
        return lines


def summary_of(
    config: Config, conditions: Iterable[Condition], templates: Iterable[Template], since: datetime
) -> Summary:
    """Count what is watched, each tag once, by the worst that is true of it in a target."""
    watched = Watched(config)
    rows = [row for row in conditions if row.place in watched and row.lack is not Lack.FILE]
    failing = dict.fromkeys(
        str(row.place.reference) for row in rows if row.status is Status.FAILING
    )
    absent = {str(row.place.reference) for row in rows if row.status is Status.ABSENT}
    counts = Counter(
        "absent" if reference in absent else "ok"
        for reference in {str(row.place.reference) for row in rows} - set(failing)
    )
    published = sum(template.created >= since for template in templates)
    return Summary(counts["ok"], tuple(failing), counts["absent"], published, since)
