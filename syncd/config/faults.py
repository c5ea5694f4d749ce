"""The faults of a configuration, in words that say what to write instead.

Pydantic finds the faults; here each becomes one sentence with its key and, for a misspelt name, the
name that was probably meant.  The value itself is never shown: it might be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from syncd.config.fields import SPAN_WORDS

_WORDS = {
    "missing": "this key is needed",
    "string_type": "write text, in quotes",
    "path_type": "write a path, in quotes",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "byte_size": "write a size like 20GiB",
    "byte_size_unit": "write a size like 20GiB",
    "time_delta_type": SPAN_WORDS,
    "time_delta_parsing": SPAN_WORDS,
    "too_short": "the list is empty: write at least one",
    "union_tag_not_found": "the key {discriminator} is needed",
    "greater_than_equal": "write a number that is at least {ge}",
    "less_than_equal": "write a number that is at most {le}",
}
"""What is said of a kind of fault (https://docs.pydantic.dev/latest/errors/validation_errors/)."""

_LIKENESS = 0.7
"""How like a known name (difflib's ratio) a name is that was probably meant as that one."""

_LISTS = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_TABLES = frozenset({"model_type", "model_attributes_type", "dict_type"})


def place_of(error: ErrorDetails) -> list[str | int]:
    """Return where a fault is: tables, keys, and positions from 0 on."""
    # A target's place has its type between position and key.  The numbered keys of a profile are
    # gathered under a key that is written nowhere, and a fault of a dictionary's key is no place.
    loc = error["loc"]
    return [
        key
        for at, key in enumerate(loc)
        if (loc[0], at) != ("target", 2) and key not in ("net[n]", "mp[n]", "[key]")
    ]


def sentence(model: type[BaseModel], error: ErrorDetails) -> str:
    """Return what is wrong at the place of a fault, and what to write there."""
    kind, context, place = error["type"], error.get("ctx", {}), place_of(error)
    if kind == "extra_forbidden":
        return "there is no such key" + _meant(str(place[-1]), _keys(model, place[:-1]))
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return f"the type is one of {_or(tags)}{_meant(str(context['tag']), tags)}"
    if kind in ("literal_error", "enum"):
        return f"write {context['expected']}"
    if kind in _LISTS:
        if len(place) == 1 and isinstance(error["input"], Mapping):
            return f"write [[{place[0]}]] with two brackets: there may be several"
        return f'write a list, such as {place[-1]} = ["..."]'
    if kind in _TABLES:
        return "write a table with keys, not a value"
    if kind == "string_pattern_mismatch":
        return _example(model, place) or f"the text has not the form {context['pattern']}"
    words = _WORDS.get(kind)
    return words.format(**context) if words else error["msg"].removeprefix("Value error, ")


def check_value(table: type[BaseModel], key: str, value: object) -> None:
    """Raise ValueError, saying what to write, unless the table's key may have this value."""
    try:
        table.model_validate({key: value})
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            if error["loc"][:1] == (key,):
                raise ValueError(sentence(table, error)) from exc


def _meant(name: str, known: Iterable[str]) -> str:
    known = [*known]
    close = [one for one in known if name and one.startswith(name.lower())] or (
        difflib.get_close_matches(name.lower(), known, n=1, cutoff=_LIKENESS)
    )
    return f"; did you mean {close[0]}?" if close else ""


def _or(words: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _keys(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the keys that the table at a place may have."""
    return [name for table in _tables(model, place) for name in table.model_fields]


def _example(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """Return how to write the key at a place, by its field's first example or its title."""
    keys = [key for key in place if isinstance(key, str)]
    for table in _tables(model, keys[:-1]):
        field = table.model_fields.get(keys[-1])
        if field is not None and field.examples:
            return f"write it like {field.examples[0]}"
        if field is not None and field.title:
            return f"write {field.title}"
    return ""


def _tables(model: type[BaseModel], place: Sequence[str | int]) -> list[type[BaseModel]]:
    """Return the models that the table at a place may be of: several for a union."""
    found = [model]
    for key in place:
        if isinstance(key, str):
            fields = [table.model_fields[key] for table in found if key in table.model_fields]
            found = [table for field in fields for table in _models(field.annotation)]
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the models within an annotation such as `tuple[Annotated[A | B, ...], ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    else:
        for part in get_args(annotation):
            yield from _models(part)
