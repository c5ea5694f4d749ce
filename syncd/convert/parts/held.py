"""Memory that a layer's tables take, given back all at once."""

from __future__ import annotations

from typing import Self

from syncd.limits import Hold


class Held:
    """Memory that a layer's tables take, and that is given back at the end of the context."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._amount = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def hold(self, amount: int) -> None:
        """Hold so many bytes more; raise what the hold of all raises."""
        self._hold(amount)
        self._amount += amount

    def free(self) -> None:
        """Give back all of it."""
        self._hold(-self._amount)
        self._amount = 0
