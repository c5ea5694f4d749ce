"""What is true of one watched tag in one target now, since when, and why.

Pure values.  A look at a tag, or a job, ends with a finding; `condition_after` says what the
finding makes of the condition that was true before.  A failure that may pass by itself is tried
again after 1, 5 and 15 minutes, then with the sweep.  What was published last stays named through
every failure, so that retention spares what is current.  A tag that was found to be gone is so, and
since then, until the registry tells otherwise: a registry that cannot be asked changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from syncd.errors import HostFaultError, SyncdError
from syncd.oci import Digest, Reference

RETRY_AFTER = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
"""How long after the first, second and third failure in a row the tag is tried again."""

_REASON_MAX = 1000  # characters


class Status(enum.StrEnum):
    """What is true of a watched tag in a target."""

    OK = "ok"
    FAILING = "failing"
    ABSENT = "absent"


class Lack(enum.StrEnum):
    """What is not there, of a tag that is absent."""

    TAG = "tag"
    """The registry lists the repository's tags, and the tag is not among them."""
    WATCH = "watch"
    """The configuration does not watch the tag in this target any more."""
    FILE = "file"
    """The target does not list the template any more; the next job publishes it again."""


@dataclass(frozen=True, slots=True)
class Place:
    """A watched reference in a target, which is named as in the configuration.

    A reference without a tag stands for the tags that a list would have named, and which nobody
    knows, since the list could not be read yet.
    """

    reference: Reference
    target: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What is true of a place.

    `since` is when the status began, `checked` when the place was last looked at, and `updated`
    when the target was last seen to hold what the tag means; `digest` and `volumes` are what it
    held then.  `reason` says why it is failing or absent, or what a container of it will lack.
    `tries` counts failures in a row; `passing` tells that a failure may pass by itself,
    and `next_try` when that is tried, where it is not left to the sweep.
    """

    place: Place
    status: Status
    since: datetime
    checked: datetime
    reason: str = ""
    passing: bool = False
    tries: int = 0
    next_try: datetime | None = None
    updated: datetime | None = None
    digest: Digest | None = None
    volumes: tuple[str, ...] = ()
    lack: Lack | None = None

    @property
    def gone(self) -> bool:
        """Whether the tag is not in the registry, or not watched, any more: it may be reaped."""
        return self.lack in (Lack.TAG, Lack.WATCH)


@dataclass(frozen=True, slots=True)
class Current:
    """The target holds what the tag means now, under these volume ids.

    `warnings` are sentences on what a container of it will lack; only who publishes knows them.
    """

    digest: Digest
    volumes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Missing:
    """The target lacks what the tag means now, and a job is to publish it."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Failed:
    """The registry or the target could not be asked, or the template could not be published.

    With `blind`, the registry did not even tell whether the tag is there.
    """

    reason: str
    passing: bool
    blind: bool = False

    @classmethod
    def of(cls, error: Exception, *, blind: bool = False) -> Failed:
        """Return the finding of an error; one that is not syncd's own is a fault in syncd.

        A refusal of this host is one of the host's.
        """
        told = error if isinstance(error, SyncdError) else HostFaultError.of(error)
        if told is not None:
            return cls(str(told), told.temporary, blind)
        return cls(f"a fault in syncd itself: {error!r}; report it", passing=False)


@dataclass(frozen=True, slots=True)
class Gone:
    """The tag is not in the registry, or not watched, any more."""

    lack: Lack
    reason: str


Finding = Current | Missing | Failed | Gone


def of_platforms(parts: Sequence[Mapping[str, Finding]]) -> dict[str, Finding]:
    """Return what was found in each target of several platforms of one tag: the worst of it.

    A target is current where it holds the images of all of them.
    """
    found: dict[str, Finding] = {}
    for name in {name: None for part in parts for name in part}:
        findings = [part[name] for part in parts if name in part]
        current = [each for each in findings if isinstance(each, Current)]
        if len(current) == len(parts):
            found[name] = Current(
                current[0].digest,
                tuple(dict.fromkeys(volume for each in current for volume in each.volumes)),
                tuple(dict.fromkeys(text for each in current for text in each.warnings)),
            )
        elif worse := sorted((each for each in findings if each not in current), key=_badness):
            found[name] = worse[0]
    return found


def _badness(finding: Finding) -> int:
    return (Failed, Missing, Gone, Current).index(type(finding))


def condition_after(
    place: Place, before: Condition | None, finding: Finding, now: datetime
) -> Condition | None:
    """Return what is true after a finding; None where nothing is known yet."""
    match finding:
        case Current(digest, volumes, warnings):
            since = _since(before, now, Status.OK)
            reason = "; ".join(warnings)[:_REASON_MAX] or _reason_of(before, digest)
            return Condition(
                place, Status.OK, since, now, reason, updated=now, digest=digest, volumes=volumes
            )
        case Failed(blind=True) if before is not None and before.lack is Lack.TAG:
            return before
        case Failed(reason, passing):
            return _failing(place, before, reason, passing, now)
        case Gone(lack, reason):
            return _absent(place, before, lack, reason, now)
        case Missing(digest):
            if before is None:
                return None
            if before.status is Status.OK and before.digest == digest:
                reason = "the target does not list the template any more; it is published again"
                return _absent(place, before, Lack.FILE, reason, now)
            return replace(before, checked=now)


def due(condition: Condition, now: datetime) -> bool:
    """Tell whether a failure is to be tried again now.

    A time that is further away than any wait was written by a clock that has been set since.
    """
    at = condition.next_try
    return at is not None and (at <= now or at > now + RETRY_AFTER[-1])


def _failing(
    place: Place, before: Condition | None, reason: str, passing: bool, now: datetime
) -> Condition:
    lasts = before is not None and before.status is Status.FAILING
    tries = (before.tries if before and lasts else 0) + 1
    again = passing and tries <= len(RETRY_AFTER)
    return replace(
        before or Condition(place, Status.FAILING, now, now),
        status=Status.FAILING,
        since=_since(before, now, Status.FAILING),
        checked=now,
        reason=reason[:_REASON_MAX],
        passing=passing,
        tries=tries,
        next_try=now + RETRY_AFTER[tries - 1] if again else None,
        lack=None,
    )


def _absent(
    place: Place, before: Condition | None, lack: Lack, reason: str, now: datetime
) -> Condition:
    same = before is not None and before.lack is lack
    looked = lack is not Lack.WATCH or before is None
    return replace(
        before or Condition(place, Status.ABSENT, now, now),
        status=Status.ABSENT,
        since=before.since if before and same else now,
        checked=now if looked or before is None else before.checked,
        reason=reason[:_REASON_MAX],
        passing=False,
        tries=0,
        next_try=None,
        lack=lack,
    )


def _reason_of(before: Condition | None, digest: Digest) -> str:
    """Return what a container of the template lacks, as far as that is known of the same image."""
    same = before is not None and (before.status, before.digest) == (Status.OK, digest)
    return before.reason if before and same else ""


def _since(before: Condition | None, now: datetime, status: Status) -> datetime:
    return before.since if before is not None and before.status is status else now
