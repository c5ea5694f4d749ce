"""The challenges of a `WWW-Authenticate` header: which schemes a server accepts, and how.

Pure.  Reads what RFC 9110 allows, several challenges in one header or in several, and forgives
what servers get wrong: commas that are missing, values without quotes, quotes without an end.

Sources: https://www.rfc-editor.org/rfc/rfc9110.html#section-11.6.1 and #section-5.6.4; for the
parameters of Bearer, https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_BETWEEN = re.compile(r"[\s,]*")
_BLANKS = re.compile(r"[ \t]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_EMPTY_PARAMETER = re.compile(r"[A-Za-z0-9._~+-]+=")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?$)', re.DOTALL)
_UNQUOTED = re.compile(r'[^\s,"]*')
_ANSWERED = ("bearer", "basic")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: its scheme and the names of its parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""

    def get(self, name: str) -> str:
        """Return a parameter's value; an empty string where the server does not name it."""
        return self.parameters.get(name, "")

    @property
    def names_service(self) -> bool:
        """Whether the realm is the URL of a token service."""
        return self.get("realm").lower().startswith(("https://", "http://"))


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all `WWW-Authenticate` headers of one answer, in their order.

    Of two parameters with one name the first counts.  What is no challenge is passed over.
    """
    return [challenge for header in headers for challenge in _parsed(header)]


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Return the challenge to answer, or None: Bearer before Basic, the first of each.

    A Bearer challenge whose realm is no URL names no token service: Basic is better.
    """
    known = [challenge for challenge in challenges if challenge.scheme in _ANSWERED]
    return min(
        known,
        key=lambda challenge: (
            challenge.scheme == "bearer" and not challenge.names_service,
            _ANSWERED.index(challenge.scheme),
        ),
        default=None,
    )


def _parsed(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str], list[str]]] = []
    at = 0
    while True:
        at = _end(_BETWEEN, header, at)
        if at >= len(header):
            break
        word = _TOKEN.match(header, at)
        if word is None:
            at = max(_end(_QUOTED, header, at), at + 1)
            continue
        at = word.end()
        equals = _EQUALS.match(header, at)
        if equals is None:
            found.append((word[0].lower(), {}, []))
            at = _token68(header, at, found[-1][2])
            continue
        value, at = _value(header, equals.end())
        if found:
            found[-1][1].setdefault(word[0].lower(), value)
    return [
        Challenge(scheme, parameters, "".join(tokens[:1])) for scheme, parameters, tokens in found
    ]


def _token68(header: str, at: int, tokens: list[str]) -> int:
    """Read the token that may follow a scheme into `tokens`; return where to read on.

    `name=` before a comma is read as a parameter without a value: to the grammar it is a token,
    but Bearer and Basic have none.
    """
    start = _end(_BLANKS, header, at)
    token = _TOKEN68.match(header, start) if start > at else None
    if token is None or _EMPTY_PARAMETER.fullmatch(token[0]):
        return start
    tokens.append(token[0])
    return token.end()


def _value(header: str, at: int) -> tuple[str, int]:
    quoted = _QUOTED.match(header, at)
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()
    plain = _UNQUOTED.match(header, at)
    return (plain[0], plain.end()) if plain else ("", at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
