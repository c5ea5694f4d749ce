"""Which references a caller of the API may have brought that nothing watches: their patterns.

A pattern is written as a reference is, `HOST/REPOSITORY` or `HOST/REPOSITORY:TAG`, in which `*`
stands for any part of one name between slashes, and `**` for any number of such names.  Without a
tag every tag and digest is meant.  A pattern with a tag means no digest: what a digest means has
nothing to do with the tag beside it.  RE2 decides, in a time linear in the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import re2

from syncd.errors import InvalidReferenceError
from syncd.oci import Reference

_LONGEST = 500  # characters
_PATTERN = re.compile(r"[A-Za-z0-9.*\[\]:-]+(?:/[a-z0-9._*-]+)+(?::[A-Za-z0-9._*-]+)?")


def check_on_demand(pattern: str) -> str:
    """Return a pattern that is one, and that some reference meets; raise ValueError."""
    if len(pattern) > _LONGEST or not _PATTERN.fullmatch(pattern) or "***" in pattern:
        raise ValueError(
            "write HOST/REPOSITORY or HOST/REPOSITORY:TAG with * and ** in it, such as "
            "ghcr.io/owner/* or docker.io/library/debian:12*"
        )
    host, _, _ = pattern.partition("/")
    sample = host.replace(":*", ":1").replace("**", "*").replace("*", "a.a")
    sample += pattern.removeprefix(host).replace("**", "a/a").replace("*", "a")
    repository, _ = _parts(sample)
    try:
        name = Reference.parse(sample).name
    except InvalidReferenceError as exc:
        raise ValueError(f"no reference is like this: {exc.what}") from exc
    if name != repository:
        raise ValueError(f"a reference is never like this: {repository} is written {name}")
    return pattern


def meets(pattern: str, reference: Reference) -> bool:
    """Tell whether a pattern means a reference, whose tag is latest where it names none."""
    repository, tag = _parts(pattern)
    if not _expression(repository)(reference.name):
        return False
    if tag is None:
        return True
    wanted = reference.with_default_tag()
    return wanted.digest is None and _expression(tag)(wanted.tag or "")


def _parts(pattern: str) -> tuple[str, str | None]:
    """Return the pattern of the repository's name, and that of the tag: a host may have a colon."""
    name, colon, tag = pattern.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (pattern, None)


@lru_cache(maxsize=256)
def _expression(pattern: str) -> Callable[[str], bool]:
    """Return whether a pattern means a whole text."""
    wild = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*)", pattern)
    expression = re2.compile("".join(wild.get(part) or re2.escape(part) for part in parts))
    return lambda text: expression.fullmatch(text) is not None
