"""What `web.attempts` promises: guesses are slowed and told, and the right token gets in."""

from __future__ import annotations

import structlog

from syncd.web import attempts
from syncd.web.attempts import Attempts
from syncd.web.peers import LOOPBACK


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


def guess(tried: Attempts, address: str, times: int) -> None:
    """Be wrong so often within an instant."""
    for _ in range(times):
        tried.refused(address, wrong)


def test_nothing_is_read_of_who_waits() -> None:
    """During a wait an address is told so before anything of it is read, but for a few looks."""
    clock = Clock()
    tried = Attempts(clock, of_deliveries=True)
    guess(tried, "a", 8)
    seen = [tried.unseen("a") for _ in range(20)]
    assert seen.count(None) == attempts.LOOKS - 3
    assert {wait for wait in seen if wait is not None} == {1}
    assert tried.unseen("b") is None
    clock.now += 1
    assert tried.unseen("a") is None


def test_no_stranger_shuts_out_a_sender() -> None:
    """A sender that was right before is heard among any number of guesses from its address."""
    clock = Clock()
    tried = Attempts(clock, of_deliveries=True)
    assert tried.refused("github", right) is None
    guess(tried, "github", 5000)
    guess(tried, "stranger", 5000)
    assert tried.refused("github", wrong) == 1
    assert tried.refused("github", right) is None
    assert tried.refused("stranger", right) == 1


def test_a_proxy_speaks_for_everybody() -> None:
    """Guesses through a proxy on loopback shut out no delivery, also before the first right one."""
    tried = Attempts(Clock(), of_deliveries=True)
    guess(tried, LOOPBACK, 5000)
    assert tried.refused(LOOPBACK, wrong) == 1
    assert tried.refused(LOOPBACK, right) is None


def test_a_token_is_guessed_slowly_wherever_it_was_right() -> None:
    """Of tokens only a few a second are looked at, also where the right one comes from."""
    tried = Attempts(Clock())
    assert tried.refused(LOOPBACK, right) is None
    guess(tried, LOOPBACK, 5000)
    assert tried.refused(LOOPBACK, right) == 1


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
    tried = Attempts(clock, of_deliveries=True)
    with structlog.testing.capture_logs() as logs:
        for number in range(5000):
            tried.refused(str(number), wrong)
        for number in range(5000):
            tried.judged(str(number), right=True)
    assert len(tried._addresses) == 1024
    assert len(tried._right) == 1024
    assert len(logs) == 20
    assert {key: logs[0][key] for key in ("event", "peer", "times")} == {
        "event": "wrong token",
        "peer": "0",
        "times": 1,
    }
