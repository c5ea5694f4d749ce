"""The configuration file: found, read, and checked whole before anything uses it.

Every fault is reported at once, with its file, line and key.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from syncd.config.faults import place_of, sentence
from syncd.config.server_settings import ServerSettings
from syncd.config.settings import Config, StateSettings
from syncd.config.target_settings import DirectoryTargetSettings
from syncd.errors import ConfigError, why_unread

DEFAULT_PATH = Path("/etc/syncd/syncd.toml")

S = TypeVar("S", bound=BaseModel)


def locate(named: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the configuration file: the named one, $SYNCD_CONFIG, /etc, or None for embedded."""
    if named is not None:
        return named
    if path := environment.get("SYNCD_CONFIG"):
        return Path(path)
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def embedded(folder: Path) -> Config:
    """Return the default: a directory target and the state below `folder`, no credentials."""
    return Config(
        state=StateSettings(directory=folder / "syncd-state"),
        target=(
            DirectoryTargetSettings(name="local", type="directory", path=folder / "syncd-storage"),
        ),
    )


def load_config(path: Path | None) -> Config:
    """Read a configuration file, or the embedded default; raise ConfigError with every fault."""
    if path is None:
        return embedded(Path.cwd())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the configuration {path} cannot be read: {why_unread(exc)}") from exc
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> Config:
    """Return the configuration that the text of the file `path` is; raise ConfigError."""
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"the configuration {path} is not TOML: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(
            f"the configuration {path} has arrays or tables nested too deeply",
            hint="no key of syncd is nested more than four deep",
        ) from exc
    except ValidationError as exc:
        faults = tuple(_fault(path, text, error) for error in exc.errors(include_url=False))
        raise ConfigError(f"the configuration {path} has faults:", faults) from exc


def likely_socket(path: Path) -> Path:
    """Return where the daemon of a file most likely listens, though the file has faults now.

    What the file says of the socket and the state counts where it can be read, else the default.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    tables = _readable(text)
    server = _only("socket", tables.get("server"), ServerSettings)
    state = _only("directory", tables.get("state"), StateSettings)
    return server.socket or state.paths.socket


def _readable(text: str) -> dict[str, object]:
    """Return those tables of a text that are TOML each by itself."""
    found: dict[str, object] = {}
    for table in re.split(r"^(?=\s*\[)", text, flags=re.MULTILINE):
        with suppress(tomllib.TOMLDecodeError, RecursionError):
            found |= tomllib.loads(table)
    return found


def _only(key: str, table: object, settings: type[S]) -> S:
    """Return settings of which one key is a table's, where it is right, and the rest by default."""
    try:
        return settings.model_validate(
            {key: table[key]} if isinstance(table, dict) and key in table else {}
        )
    except ValidationError:
        return settings()


def _fault(path: Path, text: str, error: ErrorDetails) -> str:
    """Describe one fault: file, line, key, what is wrong."""
    keys = place_of(error)
    name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    return f"{path}:{_line(text, keys)}: {name or 'as a whole'}: {sentence(Config, error)}"


def _line(text: str, keys: Sequence[str | int]) -> int:
    """Return the line, from 1 on, where a key stands, or its table if it stands nowhere."""
    table = str(keys[0]) if keys else ""
    nth = keys[1] if len(keys) > 1 and isinstance(keys[1], int) else 0
    names = [key for key in keys[1:] if isinstance(key, str)]
    # A key stands in its table, or its table's own line, as in `env = {}` and `[image.verify]`.
    first, last = (re.escape(names[0]), re.escape(names[-1])) if names else ("", "")
    written = rf"(?:{first}|{last})\s*=|\[+{re.escape(table)}\.{last}\]"
    found, seen, inside = 1, -1, False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if heading := re.match(r"\[+\s*([A-Za-z0-9_-]+)\s*\]+", stripped):
            seen += heading[1] == table
            inside = heading[1] == table and seen == nth
            found = number if inside else found
        elif names and inside and re.match(written, stripped):
            return number
    return found
