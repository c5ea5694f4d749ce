"""What passes between this host and one registry, told to whoever counts it."""

from __future__ import annotations

from typing import Protocol


class Traffic(Protocol):
    """Hears of the requests to one registry, its token service and its blob store.

    Called from several threads; never raises.
    """

    def answered(self, code: int | None, seconds: float) -> None:
        """Hear that a request got its headers after so long; `code` is None where none came."""

    def received(self, amount: int) -> None:
        """Hear that so many bytes of a document or blob came."""


class Unwatched:
    """Traffic that nobody counts."""

    def answered(self, code: int | None, seconds: float) -> None:
        """Say nothing."""

    def received(self, amount: int) -> None:
        """Say nothing."""
