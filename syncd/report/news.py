"""What people are to be told: the differences between what is true now and what they know.

Pure values.  Nothing is told of what lies between: a failure that has passed before anybody was
told of it is no news.  So a run is one message, however many conditions it changed and however
often, and a process that died tells later what it did not tell before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from syncd.config import Config
from syncd.oci import Reference
from syncd.sync import Condition, Lack, Place, Status, Told, Watched


class Event(StrEnum):
    """What happened to a watched tag, by the names of `notify.on`."""

    FAILING = "failing"
    RECOVERED = "recovered"
    NEW = "new"
    UPDATED = "updated"


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of news: what happened to a place.

    `condition` is what is true of the place now, None where nothing is known any more; `before` is
    what people know of it.  A failure that they know of is a reminder.
    """

    event: Event
    place: Place
    condition: Condition | None
    before: Told | None = None

    @property
    def is_reminder(self) -> bool:
        """Whether people were told of this very failure before."""
        return self.event is Event.FAILING and self.before is not None and self.before.failing


@dataclass(frozen=True, slots=True)
class News:
    """What is to be told, and what counts as told once that is written down.

    `lasting` counts the references that go on failing and of which nobody is reminded now.
    """

    items: tuple[Item, ...]
    told: tuple[Told, ...]
    forgotten: tuple[Place, ...]
    lasting: int = 0


def news_of(
    config: Config,
    conditions: Iterable[Condition],
    told: Mapping[Place, Told],
    now: datetime,
    *,
    heard: bool = True,
) -> News:
    """Return the news, as `config` wants them told; nothing is wanted where nobody is `heard`.

    News that nobody wants count as told, but for failures: whoever wants to hear of failures from
    now on hears of those that last.
    """
    watched = Watched(config)
    differences = _Differences(config, heard)
    current = {row.place: row for row in conditions if row.place in watched}
    for place, condition in current.items():
        differences.compare(place, condition, told.get(place), now)
    for place, known in told.items():
        if place not in current:
            # The failure of a list of tags ends with its condition; what is not watched is no news.
            differences.forget(place, known, None, ended=place in watched)
    return differences.news(_reminded(config, differences.lasting, now))


class _Differences:
    """The news as they are gathered."""

    def __init__(self, config: Config, heard: bool) -> None:
        self._config = config
        self._heard = heard
        self._items: list[Item] = []
        self._told: list[Told] = []
        self._forgotten: list[Place] = []
        self.lasting: list[Item] = []

    def compare(
        self, place: Place, condition: Condition, known: Told | None, now: datetime
    ) -> None:
        """Compare a watched place with what people know of it."""
        if self._is_failing(condition):
            if known is not None and known.failing:
                self._note(self.lasting, Event.FAILING, place, condition, known)
            elif self._note(self._items, Event.FAILING, place, condition, known):
                self._told.append(_told(condition, now, failing=True))
        elif condition.lack is Lack.TAG:
            self.forget(place, known, condition, ended=True)
        elif condition.status is Status.OK and (event := _event(condition, known)):
            self._note(self._items, event, place, condition, known)
            self._told.append(_told(condition, now, failing=False))

    def forget(
        self, place: Place, known: Told | None, condition: Condition | None, *, ended: bool
    ) -> None:
        """Let a place count as never told of; the end of a failure is news."""
        if known is None:
            return
        if ended and known.failing:
            self._note(self._items, Event.RECOVERED, place, condition, known)
        self._forgotten.append(place)

    def news(self, reminded: Iterator[tuple[Item, Told]]) -> News:
        """Return the news, with those of whom people are reminded."""
        reminders = list(reminded)
        items = (*self._items, *(item for item, _ in reminders))
        again = {item.place for item, _ in reminders}
        lasting = {item.place.reference for item in self.lasting if item.place not in again}
        told = (*self._told, *(told for _, told in reminders))
        return News(items, told, tuple(self._forgotten), len(lasting))

    def _is_failing(self, condition: Condition) -> bool:
        """Tell whether somebody has to know: a tag that is given by name has to be there."""
        tag = condition.place.reference.tag
        return condition.status is Status.FAILING or (
            condition.lack is Lack.TAG
            and any(
                tag in image.fixed_tags
                for image in self._config.images_of(condition.place.reference)
            )
        )

    def _note(
        self,
        items: list[Item],
        event: Event,
        place: Place,
        condition: Condition | None,
        known: Told | None,
    ) -> bool:
        """Add a piece of news where it is wanted; return whether it is."""
        wanted = self._heard and event.value in self._events(place.reference)
        if wanted:
            items.append(Item(event, place, condition, known))
        return wanted

    def _events(self, reference: Reference) -> frozenset[str]:
        image = self._config.watching(reference)
        if image is None or image.notify is None:
            return frozenset(self._config.notify.on)
        return frozenset(image.notify)


def _event(condition: Condition, known: Told | None) -> Event | None:
    """Return what it means that a place is in order now."""
    if known is None:
        return Event.NEW
    if known.failing:
        return Event.RECOVERED
    return Event.UPDATED if known.digest != condition.digest else None


def _told(condition: Condition, now: datetime, *, failing: bool) -> Told:
    return Told(condition.place, failing, condition.digest, condition.since, now)


def _reminded(
    config: Config, lasting: Iterable[Item], now: datetime
) -> Iterator[tuple[Item, Told]]:
    """Return the failures of which people are reminded now.

    Once one is due, so are all that were told of half as long ago, so that reminders come together.
    A time in the future was written by a clock that has been set since.
    """
    span = config.notify.remind
    if span is None:
        return
    known = [(item, item.before) for item in lasting]
    since = [(item, told, now - told.at) for item, told in known if told is not None]
    if not any(ago >= span or ago < -span for _, _, ago in since):
        return
    for item, told, ago in since:
        if ago >= span / 2 or ago < -span:
            yield item, Told(told.place, True, told.digest, told.since, now)
