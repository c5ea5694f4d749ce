"""What `web.attempts` promises: guesses are slowed and told, and the right token gets in."""

from __future__ import annotations

import structlog

from syncd.web import attempts
from syncd.web.attempts import Attempts


def wrong() -> bool:
    """Be a wrong token."""
    return False


def right() -> bool:
    """Be the right token."""
    return True


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_waits() -> None:
    """The fifth guess costs a second, each further one twice as much, up to a minute."""
    clock = Clock()
    tried = Attempts(clock)
    assert [tried.refused("a", wrong) for _ in range(5)] == [0, 0, 0, 0, 1]
    waits = []
    for _ in range(8):
        clock.now += tried.refused("a", wrong) or 0
        waits.append(tried.refused("a", wrong))
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert tried.refused("b", wrong) == 0


def test_few_are_looked_at() -> None:
    """Of thousands of guesses in a second five are looked at."""
    clock, looked = Clock(), 0
    tried = Attempts(clock)

    def look() -> bool:
        nonlocal looked
        looked += 1
        return False

    for _ in range(6000):
        assert tried.refused("a", look) is not None
        clock.now += 1 / 6000
    assert looked <= 5 + 2 * attempts.LOOKS
    assert tried.refused("a", right) is not None


def test_the_right_token() -> None:
    """The right token gets in at once, also from an address that has to wait."""
    clock = Clock()
    tried = Attempts(clock)
    for _ in range(6):
        tried.refused("a", wrong)
    assert tried.refused("a", right) is None
    for _ in range(9):
        tried.refused("a", wrong)
    assert tried.refused("a", right) is not None
    clock.now += 0.5
    assert tried.refused("a", right) is None


def test_forgotten() -> None:
    """An address begins anew an hour after its last wrong token."""
    clock = Clock()
    tried = Attempts(clock)
    for _ in range(5):
        tried.refused("a", wrong)
    clock.now += 3601
    assert tried.refused("a", wrong) == 0


def test_bounds() -> None:
    """However many addresses guess, few are remembered, and the log stays small."""
    clock = Clock()
    tried = Attempts(clock)
    with structlog.testing.capture_logs() as logs:
        for number in range(5000):
            tried.refused(str(number), wrong)
    assert len(tried._addresses) == 1024
    assert len(logs) == 20
    assert {key: logs[0][key] for key in ("event", "peer", "times")} == {
        "event": "wrong token",
        "peer": "0",
        "times": 1,
    }
