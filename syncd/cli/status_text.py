"""What `syncd status` and `syncd jobs` say to a person, in lines that fit on a narrow terminal.

They are made from what the API tells, so that they are the same with and without a daemon.

What fails comes first.  References and volume ids stay whole, however long they are, so that they
can be copied.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from syncd.cli.signature_text import voucher_text

if TYPE_CHECKING:
    from syncd.sync import (
        ConditionView,
        JobDetailView,
        JobView,
        TemplateView,
        VoucherView,
    )

_WIDEST = 120  # columns; longer lines are hard to read
_NARROWEST = 40
_ORDER = {"failing": 0, "absent": 1, "ok": 2}
_COLOURS = {"failing": "red", "absent": "yellow", "ok": "green"}
_GONE = ("tag", "watch")  # what the registry lost, and what is not watched
_EMPTY = "nothing is published yet, and nothing was looked at"


def status_lines(
    conditions: Iterable[ConditionView],
    templates: Iterable[TemplateView],
    jobs: Iterable[JobView],
) -> Iterator[str]:
    """Yield the lines: conditions, templates that no condition names, and the newest jobs."""
    conditions, templates, jobs = list(conditions), list(templates), list(jobs)
    pinned = {volume for row in templates if row["pinned"] for volume in row["volumes"]}
    vouchers = {volume: row["vouchers"] for row in templates for volume in row["volumes"]}
    named = {volume for row in conditions for volume in row["volumes"]}
    others = [row for row in templates if not named.issuperset(row["volumes"])]
    if not (conditions or templates or jobs):
        yield _EMPTY
    for condition in sorted(conditions, key=lambda row: _ORDER[row["status"]]):
        yield from _condition(condition, pinned)
        yield from _vouchers(condition["volumes"], vouchers)
    if others:
        yield from ("", "other templates:") if conditions else ("other templates:",)
    for template in others:
        yield template["reference"]
        yield from _volumes(template["volumes"], pinned)
        facts = f"{short(template['digest'])}, {template['size'] / 1e6:.1f} MB"
        yield from _wrapped(f"{facts}, published {_when(template['created'])}")
        yield from _vouchers(template["volumes"], vouchers)
    if jobs:
        yield from ("", "newest jobs:")
    yield from job_lines(jobs)


def job_lines(jobs: Iterable[JobView]) -> Iterator[str]:
    """Yield the lines about jobs."""
    for job in jobs:
        yield f"{job['id'][:8]} {job['reference']}"
        yield from _wrapped(f"by {job['cause']} at {_when(job['created'])}")
        outcome = job["outcome"]
        yield from _wrapped(f"{outcome}: {job['message']}" if outcome else job["state"])
        fetched, saved = job["fetched"] / 1e6, job["saved"] / 1e6
        if fetched or saved:
            yield from _wrapped(f"layers: {fetched:.1f} MB fetched, {saved:.1f} MB saved")


def log_lines(job: JobDetailView) -> Iterator[str]:
    """Yield the lines about one job: how far it is, and its log, whose lines stay whole."""
    yield from job_lines([job])
    yield from _volumes(job["volumes"], set())
    if (progress := job["progress"]) is not None:
        done, total = progress["done"] / 1e6, progress["total"]
        size = f"{done:.1f} of {total / 1e6:.1f} MB" if total else f"{done:.1f} MB"
        yield from _wrapped(f"{progress['step']} {progress['subject']}: {size}")
    for line in job["log"]:
        yield f"  {local_time(datetime.fromisoformat(line['at']), seconds=True)} {line['text']}"


def local_time(moment: datetime, *, seconds: bool = False) -> str:
    """Return a moment in the zone of this host, which is named."""
    local = moment.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %Z}" if seconds else f"{local:%Y-%m-%d %H:%M %Z}"


def short(digest: str) -> str:
    """Return the first twelve hex digits of a digest."""
    return digest.partition(":")[2][:12]


def _condition(condition: ConditionView, pinned: set[str]) -> Iterator[str]:
    status = str(condition["status"])
    mark = typer.style(f"{status:<8}", fg=_COLOURS[status])
    yield f"{mark}{condition['reference']}"
    facts = [f"in {condition['target']} since {_when(condition['since'])}"]
    if tries := condition["tries"]:
        facts.append(f"{tries} {'try' if tries == 1 else 'tries'}")
    if condition["next_try"]:
        facts.append(f"next at {_when(condition['next_try'])}")
    facts.append(f"looked at {_when(condition['checked'])}")
    if condition["updated"] and status != "ok":
        facts.append(f"last good {_when(condition['updated'])}")
    if condition["digest"]:
        facts.append(f"digest {short(condition['digest'])}")
    yield from _wrapped(", ".join(facts))
    if condition["reason"]:
        yield from _wrapped(condition["reason"])
    if condition["lack"] in _GONE and condition["volumes"]:
        if not pinned.issuperset(condition["volumes"]):
            yield from _wrapped("syncd prune --gone deletes what is left of it")
        else:
            yield from _wrapped("pinned: syncd prune --gone deletes it after syncd unpin VOLUME")
    yield from _volumes(condition["volumes"], pinned)


def _volumes(volumes: Iterable[str], pinned: set[str]) -> Iterator[str]:
    for volume in volumes:
        yield f"  {volume}{' pinned' if volume in pinned else ''}"


def _vouchers(
    volumes: Iterable[str], vouchers: Mapping[str, Iterable[VoucherView]]
) -> Iterator[str]:
    told = (voucher_text(one) for volume in volumes for one in vouchers.get(volume, ()))
    for voucher in dict.fromkeys(told):
        yield from _wrapped(f"vouched for: {voucher}")


def _wrapped(text: str) -> list[str]:
    columns = shutil.get_terminal_size((80, 24)).columns
    return textwrap.wrap(
        text,
        min(max(columns, _NARROWEST), _WIDEST),
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _when(moment: str) -> str:
    return local_time(datetime.fromisoformat(moment))
