"""One operation of HTTP: what it takes, what it answers, and the answers that several share.

A body is a type, whose JSON schema the description takes over, or a JSON schema itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syncd.web.answers import ErrorAnswer

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation; `place` is path, query or header."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's meaning, and its body by media type: an error's where nothing else is said."""

    description: str
    body: Any = ErrorAnswer
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path; `tag` is api, webhook or state, and api alone wants the token.

    `body` has what may be sent, by media type.
    """

    method: str
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    body_required: bool = True
    body_description: str = ""


TOO_LARGE = Answer("The body has more than 25 MiB.")
CODED = Answer("The body has a Content-Encoding.")
SLOW = Answer("The body did not arrive in time.")
MISDIRECTED = Answer("The Host is no name of this server.")
FAULT = Answer("The ledger cannot be used.")
