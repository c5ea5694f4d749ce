"""What the status page tells, gathered from the configuration, the ledger and what runs.

Pure values: whoever makes the page asks the ledger, and this puts the answers together.  The page
shows so many tags and jobs, those that fail first, and says how many it leaves out.
"""

from __future__ import annotations

import enum
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from syncd.config import Config
from syncd.oci import Reference
from syncd.report import Usage
from syncd.sync import (
    Condition,
    JobProgress,
    JobRecord,
    Lack,
    LogLine,
    Place,
    State,
    Status,
    StorageFigures,
    TemplateFigures,
    Watched,
)
from syncd.targets import Space
from syncd.trust import Voucher

_NUMBERED = re.compile(r"(\D*)(\d{0,18})")

TAGS_MAX = 2000
"""Tags that the page shows."""
JOBS_MAX = 50
"""Ended jobs that the page shows, and waiting ones."""


class Standing(enum.StrEnum):
    """What is true of a tag over all its targets: the worst of its conditions."""

    FAILING = "failing"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    OK = "ok"


_ORDER = {standing: number for number, standing in enumerate(Standing)}


@dataclass(frozen=True, slots=True)
class Spot:
    """A tag in one target: its condition, and when the template was made that lies there.

    `vouchers` are the signatures with which what the tag means passed its policy.
    """

    place: Place
    condition: Condition | None
    made: datetime | None = None
    vouchers: tuple[Voucher, ...] = ()

    @property
    def standing(self) -> Standing:
        """What is true of it."""
        return Standing(self.condition.status) if self.condition else Standing.UNKNOWN

    @property
    def lacks(self) -> str:
        """What a container of it will lack, though all is well."""
        return self.condition.reason if self.condition and self.standing is Standing.OK else ""

    @property
    def is_published(self) -> bool:
        """Whether the target holds a version of it, perhaps not the newest."""
        condition = self.condition
        return bool(condition and condition.volumes and condition.lack is not Lack.FILE)


@dataclass(frozen=True, slots=True)
class TagStanding:
    """A watched tag, or one that was, in all its targets.

    Without a tag it stands for the tags that a list would have named.
    """

    reference: Reference
    spots: tuple[Spot, ...]

    @property
    def standing(self) -> Standing:
        """The worst of what is true in its targets."""
        return min((spot.standing for spot in self.spots), key=_ORDER.__getitem__)

    def matches(self, words: Sequence[str]) -> bool:
        """Tell whether each of the words is somewhere in what is told of the tag."""
        told = [str(self.reference), self.standing.value]
        for spot in self.spots:
            told.append(spot.place.target)
            if spot.condition is not None:
                told += [str(spot.condition.digest or ""), spot.condition.reason]
        text = " ".join(told).lower()
        return all(word in text for word in words)


@dataclass(frozen=True, slots=True)
class Repository:
    """The tags of a repository, and the patterns that are watched and have named none so far."""

    reference: Reference
    tags: tuple[TagStanding, ...]
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """A reason, and the spots that fail, or lack something, for it."""

    standing: Standing
    reason: str
    spots: tuple[Spot, ...]

    @property
    def since(self) -> datetime:
        """When the first of the conditions began."""
        return min(spot.condition.since for spot in self.spots if spot.condition)


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much of something is used, in bytes; `total` is None where nobody knows it.

    `published` is what syncd has there.
    """

    label: str
    used: int
    total: int | None
    published: StorageFigures | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the page tells, as of `now`."""

    now: datetime
    host: str
    words: tuple[str, ...] = ()
    watches: bool = False
    repositories: tuple[Repository, ...] = ()
    counts: Mapping[Standing, int] = field(default_factory=dict)
    left_out: int = 0
    troubles: tuple[Trouble, ...] = ()
    running: tuple[JobRecord, ...] = ()
    progress: Mapping[str, JobProgress] = field(default_factory=dict)
    waiting: tuple[JobRecord, ...] = ()
    waiting_in_all: int = 0
    history: tuple[JobRecord, ...] = ()
    logs: Mapping[str, Sequence[LogLine]] = field(default_factory=dict)
    sweep: datetime | None = None
    weekly: datetime | None = None
    gauges: tuple[Gauge, ...] = ()

    @property
    def tags_in_all(self) -> int:
        """How many tags are known."""
        return sum(self.counts.values())


def standings(
    config: Config,
    conditions: Iterable[Condition],
    templates: Mapping[tuple[str, str, str], TemplateFigures],
    vouched: Mapping[tuple[str, str], tuple[Voucher, ...]] | None = None,
) -> list[TagStanding]:
    """Return every tag that is watched by name or has a condition, what fails first.

    `templates` are found by reference, target, and the digest of the tag, and what `vouched` by
    repository and digest.
    """
    vouched = vouched or {}
    spots: dict[Reference, dict[str, Spot]] = defaultdict(dict)
    watched = Watched(config)
    for image in config.image:
        for tag in image.fixed_tags:
            for place in watched.places_of(image.reference.with_tag(tag)):
                spots[place.reference][place.target] = Spot(place, None)
    for condition in conditions:
        place = condition.place
        made = templates.get((str(place.reference), place.target, str(condition.digest)))
        when = made.created if made else condition.updated
        vouchers = vouched.get((place.reference.name, str(condition.digest)), ())
        spots[place.reference][place.target] = Spot(place, condition, when, vouchers)
    tags = [TagStanding(reference, (*each.values(),)) for reference, each in spots.items()]
    return sorted(tags, key=lambda tag: (_ORDER[tag.standing], _natural(str(tag.reference))))


def repositories(
    config: Config, tags: Iterable[TagStanding], *, every: bool = True
) -> tuple[Repository, ...]:
    """Return tags by repository: first those that something fails in, then as configured.

    With `every`, repositories without any of the tags are among them.
    """
    groups: dict[str, list[TagStanding]] = {}
    for tag in tags:
        groups.setdefault(tag.reference.name, []).append(tag)
    patterns: dict[str, list[str]] = defaultdict(list)
    for image in config.image:
        name = image.reference.name
        if name not in groups or image.has_patterns:
            patterns[name] += image.patterns
    names = [*groups, *(name for name in patterns if every and name not in groups)]
    return tuple(
        Repository(Reference.parse(name), (*groups.get(name, ()),), (*patterns[name],))
        for name in names
    )


def troubles(tags: Iterable[TagStanding]) -> tuple[Trouble, ...]:
    """Return what fails or is absent, by reason: what fails first, then what concerns most."""
    groups: dict[tuple[Standing, str], list[Spot]] = {}
    for tag in tags:
        for spot in tag.spots:
            if spot.condition is not None and spot.condition.status is not Status.OK:
                groups.setdefault((spot.standing, spot.condition.reason), []).append(spot)
    found = [Trouble(standing, why, (*spots,)) for (standing, why), spots in groups.items()]
    return tuple(sorted(found, key=lambda each: (_ORDER[each.standing], -len(each.spots))))


def gauges(
    config: Config, usage: Usage, storages: Mapping[str, StorageFigures]
) -> tuple[Gauge, ...]:
    """Return how full the cache, the state's disk and the targets are, as far as it is known."""
    found: list[Gauge] = []
    if usage.cache:
        found.append(Gauge("Cache", sum(usage.cache.values()), config.state.cache_max))
    if usage.state is not None:
        found.append(_gauge(usage.state, str(config.state.directory)))
    for target in config.target:
        published = storages.get(target.name, StorageFigures(0, 0))
        spaces = usage.targets.get(target.name, ())
        for space in spaces:
            label = target.name if len(spaces) == 1 else f"{target.name}, {space.place}"
            found.append(replace(_gauge(space, label), published=published))
        if not spaces:
            found.append(Gauge(target.name, published.size, None, published))
    return (*found,)


def _gauge(space: Space, label: str) -> Gauge:
    return Gauge(label, space.total - space.free, space.total)


def by_state(
    records: Iterable[JobRecord],
) -> tuple[tuple[JobRecord, ...], tuple[JobRecord, ...], tuple[JobRecord, ...]]:
    """Return the jobs that run, those that wait, and those that ended: the newest first."""
    groups: dict[State, list[JobRecord]] = {state: [] for state in State}
    for record in records:
        groups[record.state].append(record)
    waiting, ended = groups[State.QUEUED][:JOBS_MAX], groups[State.DONE][:JOBS_MAX]
    return (*groups[State.RUNNING],), (*waiting,), (*ended,)


def _natural(text: str) -> list[tuple[str, int]]:
    """Return what to sort by, so that v1.10 comes behind v1.9."""
    return [(word, int(digits or 0)) for word, digits in _NUMBERED.findall(text)]
