"""The configuration file: found, read, and checked whole before anything uses it.

Every fault is reported at once, with its file, line and key.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from syncd.errors import ConfigError
from syncd.settings import Config, DirectoryTargetSettings, StateSettings

DEFAULT_PATH = Path("/etc/syncd/syncd.toml")


def locate(given: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the configuration file: the given one, $SYNCD_CONFIG, /etc, or None for embedded."""
    if given is not None:
        return given
    if named := environment.get("SYNCD_CONFIG"):
        return Path(named)
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


def embedded(folder: Path) -> Config:
    """Return the default: a directory target and the state below `folder`, no credentials."""
    return Config(
        state=StateSettings(directory=folder / "syncd-state"),
        target=(
            DirectoryTargetSettings(name="local", type="directory", path=folder / "syncd-storage"),
        ),
    )


def load(path: Path | None) -> Config:
    """Read a configuration file, or the embedded default; raise ConfigError with every fault."""
    if path is None:
        return embedded(Path.cwd())
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the configuration {path} cannot be read: {exc}") from exc
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"the configuration {path} is not TOML: {exc}") from exc
    except ValidationError as exc:
        faults = tuple(_fault(path, text, error) for error in exc.errors(include_url=False))
        raise ConfigError(f"the configuration {path} has faults:", faults) from exc


def _fault(path: Path, text: str, error: Any) -> str:
    """Describe one fault: file, line, key, what is wrong."""
    # A target's place has its type between index and key.
    keys = [key for at, key in enumerate(error["loc"]) if (error["loc"][0], at) != ("target", 2)]
    name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such key"
    return f"{path}:{_line(text, keys)}: {name or 'as a whole'}: {message}"


def _line(text: str, keys: list[str | int]) -> int:
    """Return the line, from 1 on, where a key stands, or its table if it stands nowhere."""
    table = str(keys[0]) if keys else ""
    nth = keys[1] if len(keys) > 1 and isinstance(keys[1], int) else 0
    names = [key for key in keys[1:] if isinstance(key, str)]
    found, seen, inside = 1, -1, False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if heading := re.match(r"\[+\s*([A-Za-z0-9_-]+)\s*\]+", stripped):
            seen += heading[1] == table
            inside = heading[1] == table and seen == nth
            found = number if inside else found
        elif names and inside and re.match(rf"{re.escape(names[0])}\s*=", stripped):
            return number
    return found
