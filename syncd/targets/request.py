"""A request from outside, checked once, where it enters: every fault is told at once, by key.

The models of requests are also the source of the API's description, so a model and its JSON schema
accept the same values.  Here, and not in `web`, because the command line makes containers too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, LiteralString, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationError,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from syncd.errors import InvalidReferenceError, RequestError
from syncd.oci import PORT_PATTERN, Reference

_LONGEST_LINE = 2048
"""Characters of a text that a pattern decides: patterns that look ahead take their time."""
_NO_MATCH: LiteralString = "no_match"
_PART = "[a-z0-9]+"
_PATH = rf"{_PART}(?:(?:[._]|__|-+){_PART})*(?:/{_PART}(?:(?:[._]|__|-+){_PART})*)*"
_FIRST = rf"{_PART}(?:(?:_|__|-+){_PART})*"
_HOST = (
    r"(?:localhost|[A-Za-z0-9][A-Za-z0-9.-]*\.[A-Za-z0-9.-]*[A-Za-z0-9]"
    rf"|(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\]):{PORT_PATTERN}"
    r"|\[[0-9a-fA-F]*:[0-9a-fA-F:]*\])"
)
_HUB = (
    r"(?:[iI][nN][dD][eE][xX]\.|[rR][eE][gG][iI][sS][tT][rR][yY]-1\.)?"
    r"[dD][oO][cC][kK][eE][rR]\.[iI][oO]"
)
REFERENCE_SCHEMA = {
    "type": "string",
    "description": "An image reference, such as ghcr.io/owner/image:tag.",
    "pattern": (
        rf"^(?:(?!{_HUB}/[^/:@]{{248,}}(?![^:@])){_HOST}/(?![^:@]{{256}}){_PATH}"
        rf"|(?![^:@]{{248}}){_PART}(?:(?:[._]|__|-+){_PART})*"
        rf"|(?![^:@]{{256}}){_FIRST}/{_PATH})"
        r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
        r"(?:@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}))?$"
    ),
}
"""The JSON schema of a reference: its pattern matches what `Reference.parse` reads, and no more.

The three forms are those of `Reference.parse`: a registry and a repository, a repository of
`library` of Docker Hub, and any other repository of Docker Hub, whose first part has no dot.  The
lookaheads bound the repository's length, to which `library/` counts.
"""


class ReferenceText:
    """The annotation of a field that is sent as a reference's text and kept as a `Reference`."""

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Return the check: a ValueError where `Reference.parse` raises."""
        return core_schema.no_info_plain_validator_function(_reference)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> Any:
        """Return the JSON schema of a reference."""
        return dict(REFERENCE_SCHEMA)


class PatternText:
    """The annotation of a field whose text a pattern decides; the pattern may look ahead.

    `title` completes the sentence "VALUE is not TITLE".
    """

    def __init__(self, pattern: str, title: str, description: str = "") -> None:
        self._pattern = re.compile(pattern.removesuffix("$") + r"\Z")
        self._title = title
        self._schema = {"type": "string", "pattern": pattern, "maxLength": _LONGEST_LINE}
        if description:
            self._schema["description"] = description

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Return the check: an error of the type `_NO_MATCH` where the pattern is not met."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> Any:
        """Return the JSON schema with the same pattern."""
        return dict(self._schema)

    def _checked(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("Input should be a valid string")
        if len(value) > _LONGEST_LINE or not self._pattern.match(value):
            # Without the value, which the configuration does not show.
            raise PydanticCustomError(_NO_MATCH, "Input should be {title}", {"title": self._title})
        return value


class SecretText:
    """The annotation of a field with a secret: no message and no representation shows its value.

    `characters` is the class of those that it may have, and `which` says that in words.
    """

    def __init__(
        self,
        shortest: int,
        longest: int,
        description: str,
        *,
        characters: str = r"[^\x00-\x1f\x7f]",
        which: str = "none of them a control character",
    ) -> None:
        self._which = which
        self._fits = re.compile(rf"(?:(?![\ud800-\udfff]){characters}){{{shortest},{longest}}}")
        self._bounds = shortest, longest
        self._schema = {
            "type": "string",
            "format": "password",
            "writeOnly": True,
            "pattern": rf"^{characters}{{{shortest},{longest}}}$",
            "description": description,
        }

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Return the check: a ValueError that tells nothing of the value."""
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> Any:
        """Return the JSON schema of the text as it is sent."""
        return dict(self._schema)

    def _checked(self, value: object) -> SecretStr:
        shortest, longest = self._bounds
        if not (isinstance(value, str) and self._fits.fullmatch(value)):
            raise ValueError(f"write text of {shortest} to {longest} characters, {self._which}")
        return SecretStr(str(value))


class RequestModel(BaseModel):
    """The base of every request: no unknown keys, no value converted from another type.

    A field's title completes the sentence "VALUE is not TITLE", where its pattern is not met.
    """

    # Whoever imports this does not always read requests: a model is built when it is first used.
    # A request may have a password in it, which no traceback is to show.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, defer_build=True, hide_input_in_errors=True
    )
    _refusal: ClassVar[str] = "the request is not as described"

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Self:
        """Check the fields of a request; raise RequestError with every fault and its key."""
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as exc:
            faults = "; ".join(
                f"{cls._place(error['loc'])}: {cls._fault(error)}"
                for error in exc.errors(include_url=False)
            )
            raise RequestError(f"{cls._refusal}: {faults}") from exc

    @classmethod
    def _place(cls, keys: Sequence[str | int]) -> str:
        """Return the key of a fault, for its message."""
        return ".".join(map(str, keys))

    @classmethod
    def _fault(cls, error: ErrorDetails) -> str:
        """Say what is wrong with a value, and what it should be where a pattern is not met."""
        if error["type"] == "string_pattern_mismatch":
            title = cls.model_fields[str(error["loc"][0])].title
            return f"{error['input']!r:.80} is not {title}"
        if error["type"] == _NO_MATCH:
            return f"{error['input']!r:.80} is not {error['ctx']['title']}"
        if error["type"] == "tuple_type":
            return "Input should be a list"
        return error["msg"].removeprefix("Value error, ")


def whole_number(value: object) -> object:
    """Return a number without a fraction as an int: to JSON Schema, 2.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _reference(value: object) -> Reference:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    try:
        return Reference.parse(value)
    except InvalidReferenceError as exc:
        raise ValueError(str(exc)) from exc
