"""What a sender's delivery comes down to: where to look again, or nothing to do.

An authentic delivery is believed only as far as "something of this repository changed"; it never
says which digest to fetch.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncd.oci import Reference


@dataclass(frozen=True, slots=True)
class Ignored:
    """An authentic delivery that asks for nothing, and the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class PushEvent:
    """What a delivery says was pushed.

    `repositories` are names without tag that it may mean; `owner`, when set, stands for every
    repository of that owner (a build finished, whatever it pushed).
    """

    repositories: frozenset[str] = frozenset()
    owner: str | None = None

    def concerns(self, repository: Reference) -> bool:
        """Tell whether this repository should be looked at again."""
        if repository.name in self.repositories:
            return True
        return self.owner is not None and repository.repository.split("/")[0] == self.owner
