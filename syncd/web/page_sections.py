"""The sections of the status page as HTML: what fails, what is watched, and the space.

Each section is whole by itself, so that the page's script can put a newer one in its place.
Buttons are for the script, which alone can ask the API; without it the style hides them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from syncd.sync import Condition
from syncd.web.markup import REASON_MAX, Markup, button, id_of, moment, name, pill, size, text
from syncd.web.overview import (
    Gauge,
    Overview,
    Repository,
    Spot,
    Standing,
    TagStanding,
    Trouble,
)

NAMED = 6
"""Tags of a trouble that are named at once; the others are behind a click."""
NAMED_MAX = 200
"""Tags of a trouble that are named at all."""
TROUBLES_MAX = 100
"""Troubles that are shown."""

_HEADINGS = {Standing.FAILING: "Failing", Standing.ABSENT: "Not there"}


def verdict(seen: Overview) -> Markup:
    """Return the headline: in one sentence, whether anything is to be done."""
    kind, line = _verdict(seen)
    return Markup(f'<h2 class="{kind}">{line}</h2>')


def _verdict(seen: Overview) -> tuple[str, str]:
    every, counts = seen.tags_in_all, seen.counts
    tags = f"{every:,} watched tag{'' if every == 1 else 's'}"
    bad = counts.get(Standing.FAILING, 0) + counts.get(Standing.ABSENT, 0)
    if not seen.watches:
        return "none", "Nothing is watched yet"
    if not every:
        return Standing.UNKNOWN, "No tag is known yet of what is watched"
    if bad:
        kind = Standing.FAILING if counts.get(Standing.FAILING) else Standing.ABSENT
        return kind, f"{bad:,} of {tags} {'needs' if bad == 1 else 'need'} attention"
    if unknown := counts.get(Standing.UNKNOWN, 0):
        return Standing.UNKNOWN, f"{unknown:,} of {tags} not looked at yet"
    if every == 1:
        return Standing.OK, "The watched tag is up to date"
    return Standing.OK, f"All {tags} are up to date"


def due(seen: Overview) -> Markup:
    """Return when the next sweep and the next weekly run are."""
    sweep = _planned(seen.sweep, seen.now, "off")
    weekly = _planned(seen.weekly, seen.now, "never")
    return Markup(
        f'<dl class="due"><div><dt>Next sweep</dt><dd>{sweep}</dd></div>'
        f"<div><dt>Weekly run</dt><dd>{weekly}</dd></div></dl>"
    )


def attention(seen: Overview) -> Markup:
    """Return what fails or is absent, with reason and since when; nothing where all is well."""
    shown = seen.troubles[:TROUBLES_MAX]
    if not shown:
        return Markup("")
    found = "".join(_trouble(trouble, seen.now) for trouble in shown)
    more = len(seen.troubles) - len(shown)
    left = (
        f'<p class="muted">{more:,} more reasons are told by <code>syncd status</code></p>'
        if more
        else ""
    )
    return Markup(f'<h2>Needs attention</h2><ul class="troubles">{found}</ul>{left}')


def watched(seen: Overview) -> Markup:
    """Return what is watched, by repository and tag."""
    if not seen.repositories:
        return _nothing(seen)
    groups = enumerate(seen.repositories)
    parts = "".join(_repository(repository, number) for number, repository in groups)
    left = ""
    if seen.left_out:
        left = (
            f'<p class="muted">{seen.left_out:,} more tags are not shown: filter for them, or ask '
            "<code>syncd status</code>.</p>"
        )
    return Markup(f"{parts}{left}")


def room(seen: Overview) -> Markup:
    """Return what the cache and the storages use."""
    if not seen.gauges:
        return Markup('<h2>Space</h2><p class="muted">Not looked at yet.</p>')
    gauges = "".join(_gauge(gauge, number) for number, gauge in enumerate(seen.gauges))
    return Markup(f'<h2>Space</h2><ul class="gauges">{gauges}</ul>')


def _due(at: datetime, now: datetime) -> Markup:
    return moment(at, "until") if at > now else Markup("now")


def _planned(at: datetime | None, now: datetime, otherwise: str) -> Markup:
    """Return when something is due: how soon, and at which time."""
    if at is None or at <= now:
        return Markup("now" if at else otherwise)
    return Markup(f'{moment(at, "until")}<span class="sub">{moment(at, "short")}</span>')


def _trouble(trouble: Trouble, now: datetime) -> Markup:
    spots, facts = trouble.spots, [Markup(f"since {moment(trouble.since, 'since')}")]
    conditions = [spot.condition for spot in spots if spot.condition]
    tries = max(condition.tries for condition in conditions)
    if tries:
        facts.append(Markup(f"tried {'once' if tries == 1 else f'{tries:,} times'}"))
    if trouble.standing is Standing.FAILING:
        facts.append(_next_try(conditions, now))
    good = [condition.updated for condition in conditions if condition.updated]
    if good:
        facts.append(Markup(f"last good {moment(max(good))}"))
    references = list(dict.fromkeys(spot.place.reference for spot in spots))
    names = [
        Markup(f"<li>{name(spot.place.reference)} <span>in {text(spot.place.target)}</span></li>")
        for spot in spots[:NAMED_MAX]
    ]
    shown = f'<ul class="places">{"".join(names[:NAMED])}</ul>'
    if len(names) > NAMED:
        more, key = len(spots) - NAMED, id_of("more", trouble.reason)
        left = len(spots) - len(names)
        rest = f"<li>and {left:,} that the filter and syncd status name</li>" if left else ""
        shown += (
            f'<details id="{key}"><summary>and {more:,} more</summary>'
            f'<ul class="places">{"".join(names[NAMED:])}{rest}</ul></details>'
        )
    wanted = " ".join(map(str, references[:1000]))
    act = ""
    if not all(condition.gone for condition in conditions):
        what = references[0] if len(references) == 1 else f"{len(references):,} tags"
        act = button("sync", "Try again", f"Try again: {what}", refs=wanted)
    else:
        shown += (
            "<p>What is left of it, and not pinned, is deleted by "
            "<code>syncd prune --gone</code>.</p>"
        )
    return Markup(
        f'<li class="{trouble.standing}"><div><h3>{_HEADINGS[trouble.standing]}</h3>'
        f'<p class="reason">{text(trouble.reason or "no reason is known", REASON_MAX)}</p>'
        f'<p class="facts">{" · ".join(facts)}</p>{shown}</div>{act}</li>'
    )


def _next_try(conditions: Sequence[Condition], now: datetime) -> Markup:
    planned = [condition.next_try for condition in conditions if condition.next_try]
    if planned:
        return Markup(f"next try {_due(min(planned), now)}")
    return Markup("next try with the sweep")


def _repository(repository: Repository, number: int) -> Markup:
    reference = repository.reference
    act = button("sync", "Sync", f"Sync {reference}", refs=str(reference))
    head = f'<header><h3 id="repo{number}">{name(reference)}</h3>{act}</header>'
    rows = "".join(_tag(tag) for tag in repository.tags)
    table = ""
    if rows:
        table = (
            f'<table aria-labelledby="repo{number}"><thead><tr><th scope="col">Tag</th>'
            '<th scope="col">Condition</th><th scope="col">Digest</th><th scope="col">Age</th>'
            '<th scope="col">Published in</th><th scope="col">Missing in</th>'
            '<th scope="col" class="act"><span class="hidden">Action</span></th></tr></thead>'
            f"<tbody>{rows}</tbody></table>"
        )
    patterns = ""
    if repository.patterns:
        listed = ", ".join(name(pattern) for pattern in repository.patterns)
        said = "Also watched" if rows else "No tag is known yet of"
        patterns = f'<p class="muted patterns">{said} {listed}</p>'
    return Markup(f'<section class="repo">{head}{table}{patterns}</section>')


def _tag(tag: TagStanding) -> Markup:
    spots = tag.spots
    conditions = [spot.condition for spot in spots if spot.condition]
    digests = list(dict.fromkeys(c.digest for c in conditions if c.digest))
    digest = " ".join(
        f'<code title="{text(each)}">{text(each.encoded[:12])}</code>' for each in digests
    )
    made = [spot.made for spot in spots if spot.made and spot.is_published]
    age = moment(max(made), "age") if made else Markup("")
    checked = [condition.checked for condition in conditions]
    looked = f'<span class="sub">looked at {moment(max(checked), "ago")}</span>' if checked else ""
    shown = tag.reference.tag or "its list of tags"
    act = button("sync", "Sync", f"Sync {tag.reference}", refs=str(tag.reference))
    return Markup(
        f'<tr data-standing="{tag.standing}"><th scope="row">{name(shown)}</th>'
        f'<td class="bare">{pill(tag.standing)}{looked}</td>'
        f"{_cell('Digest', digest)}{_cell('Age', age)}"
        f"{_cell('Published in', _published(tag))}{_cell('Missing in', _missing(spots))}"
        f'<td class="act">{act}</td></tr>'
    )


def _cell(label: str, content: str) -> Markup:
    """Return a cell; a narrow page shows it behind its label, and leaves an empty one out."""
    if content:
        return Markup(f'<td data-label="{label}">{content}</td>')
    return Markup('<td class="no"><span aria-label="none">–</span></td>')


def _published(tag: TagStanding) -> Markup:
    found = [spot for spot in tag.spots if spot.is_published]
    if not found:
        return Markup("")
    volumes = [volume for spot in found if spot.condition for volume in spot.condition.volumes]
    targets = ", ".join(text(spot.place.target) for spot in found)
    listed = "".join(f"<li>{name(volume)}</li>" for volume in dict.fromkeys(volumes))
    key = id_of("in", str(tag.reference))
    vouchers = dict.fromkeys(text(each) for spot in found for each in spot.vouchers)
    listed += "".join(f"<li>vouched for: {voucher}</li>" for voucher in vouchers)
    lacks = dict.fromkeys(spot.lacks for spot in found if spot.lacks)
    notes = "".join(f'<p class="lacks">{text(lack, REASON_MAX)}</p>' for lack in lacks)
    return Markup(
        f'<details id="{key}"><summary>{targets}</summary><ul>{listed}</ul></details>{notes}'
    )


def _missing(spots: Iterable[Spot]) -> Markup:
    missing = [spot for spot in spots if spot.standing is not Standing.OK and not spot.is_published]
    behind = [spot for spot in spots if spot.standing is Standing.FAILING and spot.is_published]
    told = [text(spot.place.target) for spot in missing]
    told += [Markup(f"{text(spot.place.target)} (an older one is there)") for spot in behind]
    return Markup(", ".join(told))


def _gauge(gauge: Gauge, number: int) -> Markup:
    amount, bar = f"{size(gauge.used)} used", ""
    if gauge.total:
        amount = f"{size(gauge.total - gauge.used)} of {size(gauge.total)} free"
        bar = (
            f'<meter aria-labelledby="gauge{number}" min="0" max="{gauge.total}" '
            f'high="{int(gauge.total * 0.9)}" value="{min(gauge.used, gauge.total)}"></meter>'
        )
    note = ""
    if (published := gauge.published) is not None:
        files = f"{published.files:,} template{'' if published.files == 1 else 's'}"
        note = f'<p class="muted">{files}, {size(published.size)}</p>'
    return Markup(
        f'<li><p><span id="gauge{number}">{name(gauge.label)}</span> '
        f"<span>{text(amount)}</span></p>{bar}{note}</li>"
    )


def _nothing(seen: Overview) -> Markup:
    if seen.words:
        return Markup('<p class="muted">Nothing matches the filter.</p>')
    example = (
        "[[image]]\n"
        'repository = "ghcr.io/OWNER/IMAGE"\n'
        'tags = ["latest"]\n\n'
        "[[target]]\n"
        'name = "local"\n'
        'type = "directory"\n'
        'path = "/var/lib/vz"'
    )
    return Markup(
        '<div class="empty"><p>Say in <code>/etc/syncd/syncd.toml</code> which images are to be '
        "kept, and where:</p>"
        f'<pre tabindex="0" role="region" aria-label="Example">{text(example)}</pre>'
        "<p>Then <code>systemctl reload syncd</code>. <code>syncd init</code> asks for all of it, "
        "and <code>syncd check</code> says whether it works.</p></div>"
    )
