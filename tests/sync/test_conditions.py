"""What `conditions` promises: what each finding makes of what was true before."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from syncd.errors import RegistryError, RegistryUnavailableError
from syncd.oci import Digest, Reference
from syncd.sync.conditions import (
    Condition,
    Current,
    Failed,
    Finding,
    Gone,
    Lack,
    Missing,
    Place,
    Status,
    condition_after,
    due,
)

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PLACE = Place(Reference.parse("a.b/c:latest"), "cluster")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
FINE = Current(ONE, ("cluster:vztmpl/one.tar.zst",))
DOWN = Failed("the registry is down", passing=True)
DENIED = Failed("the password is wrong", passing=False)
NO_TAG = Gone(Lack.TAG, "the registry has no such tag")


def after(*findings: Finding, before: Condition | None = None) -> Condition:
    """Return what is true after findings that come a minute apart, the last one NOW."""
    for left, finding in zip(range(len(findings))[::-1], findings, strict=True):
        before = condition_after(PLACE, before, finding, NOW - left * MINUTE)
    assert before is not None
    return before


def test_current() -> None:
    """A place that holds what the tag means is ok, and says what and since when."""
    assert after(FINE) == Condition(
        PLACE, Status.OK, NOW, NOW, updated=NOW, digest=ONE, volumes=FINE.volumes
    )


def test_ok_lasts() -> None:
    """A place that stays ok keeps its since, whatever digest is current; the looks are counted."""
    held = after(FINE, Current(TWO, ("two",)), FINE)
    assert (held.since, held.checked, held.updated) == (NOW - 2 * MINUTE, NOW, NOW)


def test_what_a_container_lacks() -> None:
    """What who published knew of an image lasts for as long as the image is current."""
    warned = replace(FINE, warnings=("no", "none"))
    assert after(warned).reason == after(warned, FINE, FINE).reason == "no; none"
    assert after(warned, Current(TWO, ("two",))).reason == ""
    assert after(warned, DOWN, FINE).reason == ""


def test_failing() -> None:
    """A failure says why and since when; what was published last stays named."""
    held = after(FINE, FINE, DOWN)
    assert (held.status, held.since, held.reason) == (Status.FAILING, NOW, DOWN.reason)
    assert (held.digest, held.volumes, held.updated) == (ONE, FINE.volumes, NOW - MINUTE)


def test_failing_lasts() -> None:
    """Failures in a row are one failure since the first, with the newest reason."""
    held = after(FINE, DOWN, DOWN, DENIED)
    assert (held.since, held.tries) == (NOW - 2 * MINUTE, 3)
    assert (held.reason, held.passing) == (DENIED.reason, False)


def test_recovered() -> None:
    """A success ends a failure, its reason, its count and its next try."""
    held = after(DOWN, DOWN, FINE)
    assert held == after(FINE)


@pytest.mark.parametrize(("times", "minutes"), [(1, 1), (2, 5), (3, 15), (4, None), (50, None)])
def test_retry(times: int, minutes: int | None) -> None:
    """A failure that may pass is tried after 1, 5 and 15 minutes, then left to the sweep."""
    held = after(*[DOWN] * times)
    assert held.next_try == (None if minutes is None else NOW + minutes * MINUTE)


def test_no_retry() -> None:
    """A failure that somebody must end is left to the sweep at once."""
    assert after(DOWN, DENIED).next_try is None


def test_a_new_failure_is_tried_soon() -> None:
    """After a success the waits begin with a minute again."""
    assert after(DOWN, DOWN, FINE, DOWN).next_try == NOW + MINUTE


@pytest.mark.parametrize(
    ("ahead", "expected"), [(-900, True), (0, True), (0.1, False), (15, False), (16, True)]
)
def test_due(ahead: float, expected: bool) -> None:
    """A try is due from its time on, and when a clock that was set left it far in the future."""
    held = replace(after(DOWN), next_try=NOW + ahead * MINUTE)
    assert due(held, NOW) is expected
    assert not due(after(FINE), NOW)


def test_gone() -> None:
    """A tag that the registry lost is absent since then; its templates stay named."""
    held = after(FINE, NO_TAG, NO_TAG)
    assert (held.status, held.lack, held.since) == (Status.ABSENT, Lack.TAG, NOW - MINUTE)
    assert (held.gone, held.volumes, held.checked) == (True, FINE.volumes, NOW)


def test_gone_otherwise() -> None:
    """A tag that is not watched any more either begins to be absent anew."""
    held = after(FINE, NO_TAG, Gone(Lack.WATCH, "it is not watched any more"))
    assert (held.lack, held.since, held.checked) == (Lack.WATCH, NOW, NOW - MINUTE)


def test_an_unreachable_registry_ends_no_absence() -> None:
    """A tag that was found to be gone stays so, since then, while nobody can ask for it."""
    gone = after(FINE, NO_TAG)
    assert after(replace(DOWN, blind=True), before=gone) == gone


def test_an_unreachable_registry_makes_nothing_gone() -> None:
    """A tag of which nobody knows whether it is gone is failing, not gone."""
    held = after(FINE, replace(DOWN, blind=True))
    assert (held.status, held.gone) == (Status.FAILING, False)


def test_a_tag_that_is_back_and_fails() -> None:
    """A tag that the registry has again, and that cannot be published, is failing and not gone."""
    held = after(FINE, NO_TAG, DOWN)
    assert (held.status, held.gone, held.since) == (Status.FAILING, False, NOW)


def test_a_deleted_file() -> None:
    """A template that was published and is not listed any more is absent, and nothing to reap."""
    held = after(FINE, Missing(ONE))
    assert (held.status, held.lack, held.gone) == (Status.ABSENT, Lack.FILE, False)
    assert after(FINE, Missing(ONE), FINE).status is Status.OK


def test_a_new_image_is_no_failure() -> None:
    """A tag that moved stays ok until a job has failed to publish what it means now."""
    assert after(FINE, Missing(TWO)) == replace(
        after(FINE), since=NOW - MINUTE, updated=NOW - MINUTE
    )


def test_nothing_is_known() -> None:
    """A look that only finds work makes no condition: the job does."""
    assert condition_after(PLACE, None, Missing(ONE), NOW) is None


def test_errors() -> None:
    """An error says itself whether it may pass; a fault in syncd does not."""
    assert Failed.of(RegistryUnavailableError("down")) == Failed("down", passing=True)
    assert Failed.of(RegistryError("denied", "log in")) == Failed("denied; log in", passing=False)
    assert Failed.of(KeyError("x")).reason.startswith("a fault in syncd itself: KeyError('x')")
    assert not Failed.of(KeyError("x")).passing
    refused = Failed.of(OSError(errno.EMFILE, "Too many open files", "/state/made"))
    assert refused.reason.startswith("this host refuses: Too many open files (/state/made); ")
    assert refused.passing
    assert len(after(Failed("x" * 10_000, passing=True)).reason) == 1000
