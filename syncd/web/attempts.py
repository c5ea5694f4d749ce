"""Wrong tokens: slowed by address, told in the log, and remembered within a bound.

After five wrong tokens an address has to wait: one second, then twice as long each time, up to a
minute.  Meanwhile each wrong token is answered with the wait, and only a few tokens a second are
looked at.  So the right token works from an address that others guess from (behind a reverse proxy
everybody has the same one), unless the guesses never pause.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from syncd.web.peers import Seldom

log = structlog.stdlib.get_logger()

FREE = 5
"""Wrong tokens before the first wait."""
LONGEST = 60.0
"""Seconds of the longest wait."""
LOOKS = 5
"""Tokens a second that are looked at during a wait."""

_ADDRESSES = 1024  # that are remembered: whoever has more is slowed less
_FORGOTTEN = 3600.0  # seconds after the last wrong token
_LOGGED = 20  # lines a minute, of all addresses


@dataclass(slots=True)
class _Address:
    """The wrong tokens of one address, until when it waits, and the looks that are left to it."""

    wrong: int = 0
    last: float = 0.0
    until: float = 0.0
    looks: float = LOOKS
    filled: float = 0.0

    def look(self, now: float) -> bool:
        """Tell whether a token may be looked at during a wait; take one look."""
        self.looks = min(LOOKS, self.looks + (now - self.filled) * LOOKS)
        self.filled = now
        if self.looks < 1:
            return False
        self.looks -= 1
        return True


class Attempts:
    """What each address tried.  Lives in one event loop.

    `told` is part of each line of the log, such as whose secret was guessed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, **told: str) -> None:
        self._clock = clock
        self._log = log.bind(**told)
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._seldom = Seldom(_LOGGED, clock)

    def refused(self, address: str, is_right: Callable[[], bool]) -> float | None:
        """Look at a token; return None when it is right, or the seconds until the next guess.

        0 means that the address may guess again at once.  `is_right` compares in constant time.
        """
        now = self._clock()
        known = self._addresses.get(address)
        if known is not None and now - known.last > _FORGOTTEN:
            known = None
        if known is None:
            known = _Address(filled=now)
        waits = known.until - now
        if waits > 0 and not known.look(now):
            return waits
        if is_right():
            return None
        if waits > 0:
            return waits
        known.wrong += 1
        known.last = now
        wait = min(LONGEST, 2.0 ** (known.wrong - FREE)) if known.wrong >= FREE else 0.0
        known.until = now + wait
        self._addresses[address] = known
        self._addresses.move_to_end(address)
        if len(self._addresses) > _ADDRESSES:
            self._addresses.popitem(last=False)
        if (passed_over := self._seldom()) is not None:
            self._log.warning(
                "wrong token", peer=address, times=known.wrong, wait=wait, also=passed_over
            )
        return wait
