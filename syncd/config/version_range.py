"""Versions in tags, and ranges of them: `>=1.2 <2`.

A tag is a version where it is one of Semantic Versioning, with or without a leading `v`: three
numbers, since `1.2` and `1` beside `1.2.3` are names that move.  What a range compares with may be
shorter and is then meant as a whole: `<=1.2` has 1.2.9 in it.  A prerelease, and so `1.2.3-alpine`,
is in a range only where the range names a prerelease of the same three numbers.

Sources: https://semver.org/spec/v2.0.0.html, 11; https://github.com/npm/node-semver, "Ranges",
"Prerelease Tags"; https://fluxcd.io/flux/components/image/imagepolicies/, "SemVer", which takes
tags of three numbers only, too.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from semver import Version

_COMPARATOR = re.compile(
    r"(?P<sign>>=|<=|>|<|=)?v?(?P<numbers>(?:0|[1-9][0-9]{0,17})(?:\.(?:0|[1-9][0-9]{0,17})){0,2})"
    r"(?P<prerelease>-[0-9A-Za-z.-]+)?"
)
_LONGEST = 500  # characters


def version_of(tag: str) -> Version | None:
    """Return the version that a tag is, or None."""
    try:
        return Version.parse(tag.removeprefix("v"))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Comparator:
    """One bound: how a version has to compare with another one."""

    compare: Callable[[Version, Version], bool]
    bound: Version


class VersionRange:
    """A range of versions: every bound of it holds."""

    def __init__(self, text: str, bounds: tuple[_Comparator, ...], named: frozenset[Version]):
        self._text = text
        self._bounds = bounds
        self._named = named

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read bounds parted by blanks, each a sign (`=` where there is none) and a version.

        Raise ValueError.
        """
        parts = [_COMPARATOR.fullmatch(part) for part in text[:_LONGEST].split()]
        if not parts or not all(parts) or len(text) > _LONGEST:
            raise ValueError(
                "not a range of versions: write bounds with >=, >, <, <= or =, parted by blanks, "
                "as in semver:>=1.2 <2"
            )
        bounds: list[_Comparator] = []
        named: set[Version] = set()
        for part in filter(None, parts):
            numbers = part["numbers"].split(".")
            if part["prerelease"] and len(numbers) < 3:
                raise ValueError("a prerelease follows three numbers, as in >=1.2.0-rc.1")
            try:
                lowest = Version.parse(".".join([*numbers, "0", "0"][:3]) + (part[3] or ""))
            except ValueError as exc:
                raise ValueError(f"not a version: {exc}") from exc
            bounds += _bounds(part["sign"] or "=", lowest, len(numbers))
            if lowest.prerelease:
                named.add(lowest.finalize_version())
        return cls(text, tuple(bounds), frozenset(named))

    def __contains__(self, version: Version) -> bool:
        if version.prerelease and version.finalize_version() not in self._named:
            return False
        return all(each.compare(version, each.bound) for each in self._bounds)

    def __str__(self) -> str:
        return self._text


def _bounds(sign: str, lowest: Version, numbers: int) -> list[_Comparator]:
    """Return the bounds that a sign means of a version of which so many numbers are given."""
    at_least, below = _Comparator(operator.ge, lowest), _Comparator(operator.lt, lowest)
    if numbers == 3:
        above = _Comparator(operator.gt, lowest)
        at_most = _Comparator(operator.le, lowest)
    else:
        beyond = lowest.bump_minor() if numbers == 2 else lowest.bump_major()
        above, at_most = _Comparator(operator.ge, beyond), _Comparator(operator.lt, beyond)
    return {
        ">=": [at_least],
        ">": [above],
        "<": [below],
        "<=": [at_most],
        "=": [at_least, at_most],
    }[sign]
