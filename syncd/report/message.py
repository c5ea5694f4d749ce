"""The words of a message: what a person reads on a phone at three at night.

The title says what happened and to how many tags, and on which host.  The body names each tag,
why, and since when, and ends with what to do.  Tags that fail for the same reason share its
sentence, and the tags of a repository share a line, so that 35 tags of a registry fit on a screen.
Pure text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from syncd.report.news import Event, Item, News
from syncd.report.summary import Summary
from syncd.sync import Notification, Replacement, Severity, Status, by_number

K = TypeVar("K")

_BODY_MAX = 3500  # characters: ntfy and Telegram take some 4,000
_REASON_MAX = 400  # characters
_TAGS_MAX = 40  # tags named on a line
_MORE = "... and more: syncd status tells all"


def message_of(
    news: News,
    host: str,
    now: datetime,
    *,
    summary: Summary | None = None,
    returned: Sequence[Replacement] = (),
) -> Notification:
    """Return the message that tells news.

    Part of the message are the `summary` of the weekly run, where there is one, and the containers
    that `returned` to their old roots.
    """
    fresh = _of(news, Event.FAILING, reminder=False)
    again = _of(news, Event.FAILING, reminder=True)
    recovered, new, updated = (
        _of(news, event) for event in (Event.RECOVERED, Event.NEW, Event.UPDATED)
    )
    parts = [
        (fresh, "failing", _failing(fresh, "failing")),
        (again, "still failing", _failing(again, "still failing")),
        (recovered, "recovered", _recovered(recovered)),
        (new, "new", _good(new, "new")),
        (updated, "updated", _good(updated, "updated")),
    ]
    told = [(items, word, lines) for items, word, lines in parts if items]
    titles = [_count(items, word) for items, word, _ in told]
    lines = [line for _, _, part in told for line in part]
    if news.lasting and told:
        lines.append(f"failing as before: {_tags(news.lasting)}")
    if returned:
        titles.insert(0, _containers(returned))
        lines[:0] = map(_returned, returned)
    if summary is not None:
        titles.append("weekly run done")
        lines += summary.lines()
    last = [*_what_to_do([*fresh, *again], host, now), *_replace_again(returned, host)]
    return Notification(
        f"syncd on {host}: {', '.join(titles)}",
        _bounded(lines, last),
        _severity(bool(fresh or returned), bool(again), [*new, *updated], summary),
    )


def _of(news: News, event: Event, *, reminder: bool = False) -> list[Item]:
    return [item for item in news.items if item.event is event and item.is_reminder is reminder]


def _count(items: Sequence[Item], word: str) -> str:
    references = dict.fromkeys(item.place.reference for item in items)
    if len(references) == 1:
        return f"{next(iter(references))} {word}"
    return f"{_tags(len(references))} {word}"


def _tags(count: int) -> str:
    return "1 tag" if count == 1 else f"{count} tags"


def _failing(items: Iterable[Item], word: str) -> Iterator[str]:
    """Return each reason once, with the tags that it is true of."""
    for reason, alike in _grouped(items, _reason).items():
        yield f"{word}: {reason}"
        for name, of_one in _grouped(alike, _repository).items():
            since = _span(map(_since, of_one))
            yield f"- {name}: {_named(of_one)}, since {since}, in {_targets(of_one)}"


def _recovered(items: Iterable[Item]) -> Iterator[str]:
    for name, alike in _grouped(items, _repository).items():
        for end, of_one in _grouped(alike, _end).items():
            since = _span(map(_since, of_one))
            yield f"{end}: {name}: {_named(of_one)}, failing since {since}, in {_targets(of_one)}"


def _end(item: Item) -> str:
    """Return how a failure ended."""
    condition = item.condition
    if condition is None:
        return "recovered"
    return "recovered" if condition.status is Status.OK else "gone from the registry"


def _good(items: Iterable[Item], word: str) -> Iterator[str]:
    """Return what is published now, with what a container of it will lack."""
    for (name, version, lack), alike in _grouped(items, _version).items():
        yield f"{word}: {name}: {_named(alike)} ({version}), in {_targets(alike)}"
        if lack:
            yield f"- but {lack}"


def _version(item: Item) -> tuple[str, str, str]:
    condition = item.condition
    digest = condition.digest.encoded[:12] if condition and condition.digest else "no digest"
    return item.place.reference.name, digest, _short(condition.reason) if condition else ""


def _reason(item: Item) -> str:
    """Return why a place is failing, without its own name, so that others have the same reason."""
    reference = item.place.reference
    reason = item.condition.reason if item.condition else ""
    for name in (str(reference), f"the tags of {reference.name}", reference.name):
        reason = reason.replace(name, "it")
    return _short(reason)


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON_MAX else f"{reason[:_REASON_MAX]}..."


def _since(item: Item) -> datetime | None:
    """Return when a failure began, as people were told if they were."""
    if item.before is not None and item.before.failing:
        return item.before.since
    return item.condition.since if item.condition is not None else None


def _repository(item: Item) -> str:
    return item.place.reference.name


def _grouped(items: Iterable[Item], key: Callable[[Item], K]) -> dict[K, list[Item]]:
    groups: dict[K, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _named(items: Iterable[Item]) -> str:
    """Return the tags of items of one repository, the first ones by name."""
    named = {item.place.reference.tag or "its list of tags" for item in items}
    tags = sorted(named, key=by_number)
    more = f" and {len(tags) - _TAGS_MAX} more" if len(tags) > _TAGS_MAX else ""
    return ", ".join(tags[:_TAGS_MAX]) + more


def _targets(items: Iterable[Item]) -> str:
    return ", ".join(dict.fromkeys(item.place.target for item in items))


def _span(moments: Iterable[datetime | None]) -> str:
    """Return a moment, or the first and the last of several."""
    shown = list(dict.fromkeys(map(_when, sorted(filter(None, moments)))))
    return shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def _what_to_do(items: Sequence[Item], host: str, now: datetime) -> Iterator[str]:
    """Return what a person does about failures; what lasts for long does not pass by itself."""
    conditions = [item.condition for item in items if item.condition is not None]
    if any(item.is_reminder for item in items) or not all(row.passing for row in conditions):
        yield (
            f"What to do: mend what is named above, then run `syncd sync` on {host}, or wait for "
            "the next sweep. What was published before stays."
        )
    elif conditions:
        tries = [row.next_try for row in conditions if row.next_try and row.next_try > now]
        at = f"next at {_when(min(tries))}" if tries else "with each sweep"
        yield (
            f"What to do: nothing yet, syncd tries again by itself, {at}. What was published "
            f"before stays. If it lasts: `syncd status` on {host}."
        )


def _containers(returned: Sequence[Replacement]) -> str:
    if len(returned) == 1:
        return f"container {returned[0].swap.vmid} not replaced"
    return f"{len(returned)} containers not replaced"


def _returned(replacement: Replacement) -> str:
    swap = replacement.swap
    return (
        f"not replaced: container {swap.vmid} on {swap.node} in {replacement.target}, by "
        f"{swap.image}: {_short(replacement.reason)}"
    )


def _replace_again(returned: Sequence[Replacement], host: str) -> Iterator[str]:
    if returned:
        yield (
            "The old root is back. What to do: mend the reason, then run `syncd replace "
            f"{returned[0].swap.vmid}` on {host}."
        )


def _severity(
    failing: bool, reminded: bool, good: Sequence[Item], summary: Summary | None
) -> Severity:
    if failing:
        return Severity.FAILURE
    if reminded or any(item.condition and item.condition.reason for item in good):
        return Severity.WARNING
    if summary is not None:
        return Severity.WARNING if summary.failing else Severity.INFO
    return Severity.SUCCESS


def _bounded(lines: Sequence[str], last: Sequence[str]) -> str:
    """Return the lines as a text of bounded length, which keeps the last ones whole."""
    room = _BODY_MAX - sum(len(line) + 1 for line in last) - len(_MORE) - 1
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            kept.append(_MORE)
            break
        kept.append(line)
    return "\n".join([*kept, *last])
