"""The jobs of the status page as HTML: what runs and waits, and what ended, with its log."""

from __future__ import annotations

from collections.abc import Sequence

from syncd.sync import JobProgress, JobRecord, LogLine, Result
from syncd.web.markup import REASON_MAX, Markup, button, id_of, moment, name, pill, size, span, text
from syncd.web.overview import Overview

LINES_SHOWN = 60
"""Lines of a job's log."""
LINE_MAX = 300
"""Characters of a line."""

_STEPS = {
    "wait": "Waiting for memory to convert in",
    "convert": "Beginning to convert",
    "layer": "Reading layers",
    "flatten": "Writing the template",
    "publish": "Publishing",
    "create": "Making a container",
}
_RETRIED = (Result.FAILED, Result.CANCELLED, Result.INTERRUPTED)


def running(seen: Overview) -> Markup:
    """Return what runs, how far it is, and what waits."""
    jobs = "".join(_running(job, seen.progress.get(job.job.id)) for job in seen.running)
    waiting = "".join(
        f'<li class="waiting"><span>{name(record.job.reference)}</span>'
        f"{button('cancel', 'Cancel', f'Cancel {record.job.reference}', job=record.job.id)}</li>"
        for record in seen.waiting
    )
    every = seen.waiting_in_all
    if waiting:
        more = every - len(seen.waiting)
        rest = f'<li class="muted">and {more:,} more</li>' if more > 0 else ""
        said = "1 job waits for its turn" if every == 1 else f"{every:,} jobs wait for their turn"
        waiting = (
            f'<details class="queue" id="queue"><summary>{said}</summary>'
            f"<ul>{waiting}{rest}</ul></details>"
        )
    idle = "" if jobs or waiting else '<p class="muted">Nothing runs, and nothing waits.</p>'
    listed = f'<ul class="jobs">{jobs}</ul>' if jobs else ""
    return Markup(f"<h2>Running now</h2>{listed}{waiting}{idle}")


def history(seen: Overview) -> Markup:
    """Return the jobs that ended, newest first, with their logs."""
    jobs = "".join(_ended(record, seen.logs.get(record.job.id, ())) for record in seen.history)
    if not jobs:
        return Markup('<h2>Jobs</h2><p class="muted">No job has ended yet.</p>')
    return Markup(f'<h2>Jobs</h2><ul class="history">{jobs}</ul>')


def _running(record: JobRecord, progress: JobProgress | None) -> Markup:
    job = record.job
    facts = [Markup(f"by {text(job.cause)}")]
    if record.started:
        facts.append(Markup(f"since {moment(record.started, 'since')}"))
    single = job.reference.tag or job.reference.digest
    what = "Looking" if single else "Looking at each watched tag"
    step = value = amount = ""
    if progress is not None:
        step = progress.step
        what = _STEPS.get(progress.step, text(progress.step, 60))
        amount = _amount(progress)
        if progress.total:
            value = f' value="{min(progress.done, progress.total)}" max="{progress.total}"'
    bar = f'<progress aria-label="Progress of {text(job.reference, 600)}"{value}></progress>'
    return Markup(
        f'<li data-job="{text(job.id, 100)}" data-step="{text(step, 60)}"><div>'
        f"<h3>{name(job.reference)}</h3>"
        f'<p class="step"><span>{what}</span> <span data-amount>{amount}</span></p>'
        f'{bar}<p class="facts">{" · ".join(facts)}</p></div>'
        f"{button('cancel', 'Cancel', f'Cancel {job.reference}', job=job.id)}</li>"
    )


def _amount(progress: JobProgress) -> Markup:
    """Return the bytes of a step, as the script writes them, too."""
    if not progress.total:
        return text(size(progress.done) if progress.done else "")
    return text(f"{size(progress.done)} of {size(progress.total)}")


def _ended(record: JobRecord, lines: Sequence[LogLine]) -> Markup:
    job, outcome = record.job, record.outcome
    result = outcome.result if outcome else Result.INTERRUPTED
    begun = record.started or job.created
    took = span(record.finished - begun) if record.finished else ""
    facts = f"<span>by {text(job.cause)}</span><span>{took}</span><span>{moment(begun)}</span>"
    body = f'<p class="reason">{text(outcome.message, REASON_MAX)}</p>' if outcome else ""
    if outcome and any(outcome.layers):
        fetched, saved = map(size, outcome.layers)
        body += f'<p class="muted">Layers: {text(fetched)} fetched, {text(saved)} saved</p>'
    if outcome and outcome.volumes:
        volumes = "".join(f"<li>{name(volume)}</li>" for volume in outcome.volumes[:100])
        body += f'<ul class="volumes">{volumes}</ul>'
    body += _log(job.id, lines)
    body += f'<p class="muted">Job <code>{text(job.id, 100)}</code></p>'
    if result in _RETRIED:
        body += button("retry", "Try again", f"Try again: {job.reference}", job=job.id)
    return Markup(
        f'<li><details id="{id_of("job", job.id)}"><summary>{pill(result)}'
        f'<span class="what">{name(job.reference)}</span>{facts}</summary>'
        f'<div class="body">{body}</div></details></li>'
    )


def _log(job: str, lines: Sequence[LogLine]) -> Markup:
    if not lines:
        return Markup('<p class="muted">It has no log.</p>')
    shown = lines[-LINES_SHOWN:]
    before = len(lines) - len(shown)
    listed = [text(f"{before} lines before these: syncd jobs ID")] if before else []
    for line in shown:
        at, level = moment(line.at, "clock"), text(line.level, 10)
        listed.append(Markup(f'<span class="{level}">{at} {text(line.text, LINE_MAX)}</span>'))
    body = "\n".join(listed)
    label = f"Log of job {text(job, 100)}"
    return Markup(f'<pre tabindex="0" role="region" aria-label="{label}">{body}</pre>')
