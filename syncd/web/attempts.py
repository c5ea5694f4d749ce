"""Wrong tokens and signatures: slowed by address, told in the log, remembered within a bound.

After five wrong ones an address has to wait: one second, then twice as long each time, up to a
minute.  Meanwhile each wrong one is answered with the wait, and only a few a second are looked at.
So the right token works from an address that others guess from (behind a reverse proxy everybody
has the same one), unless the guesses never pause.

A person may come again later; a delivery that is refused is lost.  So for deliveries no guesses
shut out the right secret from an address that had it before, nor from loopback, where a reverse
proxy speaks for everybody: there every one is looked at, and only the wrong ones are told to wait.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from syncd.web.peers import LOOPBACK, Seldom

log = structlog.stdlib.get_logger()

FREE = 5
"""Wrong ones before the first wait."""
LONGEST = 60.0
"""Seconds of the longest wait."""
LOOKS = 5
"""How many a second are looked at during a wait."""

_ADDRESSES = 1024  # that are remembered: whoever has more is slowed less
_FORGOTTEN = 3600.0  # seconds after the last wrong one
_LOGGED = 20  # lines a minute, of all addresses

_T = TypeVar("_T")


@dataclass(slots=True)
class _Address:
    """The wrong ones of one address, until when it waits, and the looks that are left to it."""

    wrong: int = 0
    last: float = 0.0
    until: float = 0.0
    looks: float = LOOKS
    filled: float = 0.0

    def look(self, now: float) -> bool:
        """Tell whether one may be looked at during a wait; take one look."""
        self.looks = min(LOOKS, self.looks + (now - self.filled) * LOOKS)
        self.filled = now
        if self.looks < 1:
            return False
        self.looks -= 1
        return True


class Attempts:
    """What each address tried.  Lives in one event loop.

    `of_deliveries` says that a refused caller does not come again.  `told` is part of each line of
    the log, such as whose secret was guessed.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        of_deliveries: bool = False,
        **told: str,
    ) -> None:
        self._clock = clock
        self._of_deliveries = of_deliveries
        self._log = log.bind(**told)
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._right: OrderedDict[str, None] = OrderedDict()  # who had the secret of deliveries
        self._seldom = Seldom(_LOGGED, clock)

    def refused(self, address: str, is_right: Callable[[], bool]) -> float | None:
        """Look at a token; return None when it is right, or the seconds until the next guess.

        0 means that the address may guess again at once.  `is_right` compares in constant time.
        """
        wait = self.unseen(address)
        return self.judged(address, right=is_right()) if wait is None else wait

    def unseen(self, address: str) -> float | None:
        """Return for how many seconds nothing of an address is looked at, or None: it is, now."""
        now, known = self._clock(), self._known(address)
        if known is None or known.until <= now or self._is_spared(address) or known.look(now):
            return None
        return known.until - now

    def judged(self, address: str, *, right: bool) -> float | None:
        """Hear what was found of what was looked at; return what `refused` returns."""
        if right:
            if self._of_deliveries:
                _remember(self._right, address, None)
            return None
        now = self._clock()
        known = self._known(address) or _Address(filled=now)
        if known.until > now:
            return known.until - now
        known.wrong += 1
        known.last = now
        wait = min(LONGEST, 2.0 ** (known.wrong - FREE)) if known.wrong >= FREE else 0.0
        known.until = now + wait
        _remember(self._addresses, address, known)
        if (passed_over := self._seldom()) is not None:
            self._log.warning(
                "wrong token", peer=address, times=known.wrong, wait=wait, also=passed_over
            )
        return wait

    def _known(self, address: str) -> _Address | None:
        """Return what is remembered of an address, if that is not too long ago."""
        known = self._addresses.get(address)
        if known is not None and self._clock() - known.last > _FORGOTTEN:
            return None
        return known

    def _is_spared(self, address: str) -> bool:
        """Tell whether everything of an address is looked at, however often it was wrong."""
        return self._of_deliveries and (address == LOOPBACK or address in self._right)


def _remember(table: OrderedDict[str, _T], address: str, what: _T) -> None:
    """Keep what is known of an address, which is the newest now, and let the oldest go."""
    table[address] = what
    table.move_to_end(address)
    if len(table) > _ADDRESSES:
        table.popitem(last=False)
