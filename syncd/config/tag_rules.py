"""Which tags an `[[image]]` watches: names, and rules for what a registry's list of tags names.

A tag is taken by rule where one of `re:` and `semver:` matches it and no `not:` does; of these
`newest:` leaves so many.  A name is watched whatever the rules say.  No rule ever meets what
signing leaves in a repository: `sha256-DIGEST`, the fallback tag of referrers, and
`sha256-DIGEST.sig` and the like of cosign.

Regular expressions are RE2's: the time of a match is linear in the tag, so that no pattern can hold
up the daemon, as one may that Python's `re` runs.  The price is that there is no look-around and no
back-reference (https://github.com/google/re2/wiki/Syntax); `not:` is there for most of their uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import re2

from syncd.config.version_range import VersionRange, version_of
from syncd.oci import is_attachment, is_tag

_NEWEST = re.compile(r"([1-9][0-9]{0,3})(?: by (version|creation))?")
_EXPRESSION_MAX = 1000  # characters
_KINDS = ("re", "semver", "not", "newest")


@dataclass(frozen=True, slots=True)
class Newest:
    """How many tags are taken at most, and whether their versions or their images are compared."""

    count: int
    by_creation: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3`, `3 by version` or `3 by creation`; raise ValueError."""
        match = _NEWEST.fullmatch(text)
        if match is None:
            raise ValueError(
                "write newest:3, newest:3 by version or newest:3 by creation, with 1 to 9999"
            )
        return cls(int(match[1]), by_creation=match[2] == "creation")


@dataclass(frozen=True, slots=True)
class TagPattern:
    """A rule that tells of a tag whether it is meant; `text` is how the rule is written."""

    text: str
    meets: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class TagRules:
    """The names and rules of one `[[image]]`."""

    names: tuple[str, ...]
    takes: tuple[TagPattern, ...]
    leaves: tuple[TagPattern, ...]
    newest: Newest | None

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, tags: tuple[str, ...]) -> Self:
        """Read names and rules; raise ValueError where one is wrong or they do not go together."""
        of_kind: dict[str, list[str]] = {kind: [] for kind in ("", *_KINDS)}
        for tag in tags:
            of_kind[_kind(tag)].append(tag)
        for name in of_kind[""]:
            _check_name(name)
        takes = [TagPattern(each, _expression(each)) for each in of_kind["re"]]
        takes += [TagPattern(each, _versions(each)) for each in of_kind["semver"]]
        leaves = [TagPattern(each, _expression(each)) for each in of_kind["not"]]
        newest = [Newest.parse(_argument(each)) for each in of_kind["newest"]]
        if len(newest) > 1:
            raise ValueError("newest: is there twice: it counts what all patterns take together")
        if newest and not takes:
            every = _anything if newest[0].by_creation else _released
            takes = [TagPattern(of_kind["newest"][0], every)]
        if leaves and not takes:
            raise ValueError("not: leaves out what re:, semver: or newest: takes: add one of these")
        return cls(tuple(of_kind[""]), tuple(takes), tuple(leaves), newest[0] if newest else None)

    def meet(self, tag: str) -> bool:
        """Tell whether the rules take a tag, if it is one of the newest where these are wanted."""
        return (
            not is_attachment(tag)
            and any(each.meets(tag) for each in self.takes)
            and not any(each.meets(tag) for each in self.leaves)
            and (self.newest is None or self.newest.by_creation or version_of(tag) is not None)
        )


def check_tag(value: str) -> str:
    """Check one name or rule by itself; raise ValueError."""
    match _kind(value):
        case "re" | "not":
            _expression(value)
        case "semver":
            _versions(value)
        case "newest":
            Newest.parse(_argument(value))
        case _:
            _check_name(value)
    return value


def check_tags(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check that there are names or rules, and that they go together; raise ValueError."""
    if not values:
        raise ValueError("the list is empty: write at least one")
    TagRules.parse(values)
    return values


def newest_versions(tags: Iterable[str], count: int) -> list[str]:
    """Return those tags that are the highest versions, the lowest of them first."""
    versions = [(version, tag) for tag in tags if (version := version_of(tag)) is not None]
    return [tag for _, tag in sorted(versions)[-count:]]


def _kind(tag: str) -> str:
    kind, colon, _ = tag.partition(":")
    return kind if colon and kind in _KINDS else ""


def _argument(rule: str) -> str:
    return rule.partition(":")[2]


def _check_name(name: str) -> None:
    if not is_tag(name):
        raise ValueError(
            f"{name[:140]!r} is not a tag (at most 128 of A-Z a-z 0-9 . _ -), and no rule "
            "that begins with re:, semver:, not: or newest:"
        )


def _expression(rule: str) -> Callable[[str], bool]:
    """Return whether a regular expression is found anywhere in a tag."""
    text = _argument(rule)
    if len(text) > _EXPRESSION_MAX:
        raise ValueError(f"a regular expression of more than {_EXPRESSION_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        expression = re2.compile(text, options)
    except re2.error as exc:
        raise ValueError(f"not a regular expression of RE2: {_said(exc)}") from exc
    return lambda tag: expression.search(tag) is not None


def _said(error: Exception) -> str:
    """Return what RE2 says, which it says in bytes, and what to do about what it does not take."""
    said = error.args[0] if error.args else ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    if text.startswith(("invalid perl operator: (?", "invalid escape sequence: ")):
        text += " (it has no look-around and no back-references; not:PATTERN leaves tags out)"
    return text


def _versions(rule: str) -> Callable[[str], bool]:
    """Return whether a tag is a version in a range."""
    versions = VersionRange.parse(_argument(rule))

    def meets(tag: str) -> bool:
        version = version_of(tag)
        return version is not None and version in versions

    return meets


def _released(tag: str) -> bool:
    version = version_of(tag)
    return version is not None and version.prerelease is None


def _anything(_: str) -> bool:
    return True
