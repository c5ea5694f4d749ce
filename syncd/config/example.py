"""The example of the configuration, and configurations that are written with its words.

Every key of `config/syncd.toml` stands below a sentence that says what the key is.  A configuration
that `syncd init` writes has the same sentences, so the next person can read it without a manual.
The example is part of the package under the name `example.toml`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

_HEADING = re.compile(r"#?\[+([a-z.]+)\]+")
_KEY = re.compile(r"#?([a-z_0-9]+) = (.*)")

Value = str | int | bool | Path | tuple[str, ...]


class ExampleKey(NamedTuple):
    """What the example says of a key: its value there as TOML, and the sentence above it."""

    value: str
    sentence: str


def example_text() -> str:
    """Return the example of the configuration, which has every key there is."""
    return files("syncd.config").joinpath("example.toml").read_text(encoding="utf-8")


def example_keys() -> list[tuple[str, dict[str, ExampleKey]]]:
    """Return each table of the example, in its order: the table's name, and what its keys are."""
    found: list[tuple[str, dict[str, ExampleKey]]] = []
    comment: list[str] = []
    for line in example_text().splitlines():
        if heading := _HEADING.fullmatch(line):
            found.append((heading[1], {}))
        elif key := _KEY.fullmatch(line):
            found[-1][1][key[1]] = ExampleKey(key[2], " ".join(comment).rstrip(","))
        elif line.startswith("# "):
            comment.append(line.removeprefix("# "))
            continue
        comment = []
    return found


def configuration_text(head: str, tables: Iterable[tuple[str, Mapping[str, Value]]]) -> str:
    """Return a configuration as the text of its file: a comment, then tables by their names.

    A table is written in one pair of brackets or in two, as in the example, and each of its keys
    below the example's sentence.  Raise KeyError for a table or key that the example has not.
    """
    sentences: dict[str, dict[str, str]] = {}
    for name, keys in example_keys():
        told = {key: shown.sentence.removeprefix("or ") for key, shown in keys.items()}
        sentences.setdefault(name, {}).update(told)
    several = set(re.findall(r"^#?\[\[([a-z]+)\]\]", example_text(), re.MULTILINE))
    parts = ["".join(f"# {line}\n" for line in head.splitlines())]
    for name, values in tables:
        lines = [f"[[{name}]]" if name in several else f"[{name}]"]
        for key, value in values.items():
            lines += [f"# {sentences[name][key]}", f"{key} = {_toml(value)}"]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _toml(value: Value) -> str:
    """Return a value as TOML 1.0 writes it; a JSON string is a basic string but for DEL."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int):
        return str(value).lower()
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
