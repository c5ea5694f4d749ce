"""How an image wants to be run: the object `config` of its config, checked for every way out.

Proxmox VE writes what an image says here into the container's configuration on the host, a text of
one line for each option.  So this is hostile input like the layers: no field has a control
character, each has its type, and their number and size are bounded.  Whoever has an `Image` need
not look again.  Pure.

Source: https://github.com/opencontainers/image-spec/blob/main/config.md, "Properties".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from syncd.errors import ImageError

FIELDS: Mapping[str, type] = {
    "User": str,
    "ExposedPorts": dict,
    "Env": list,
    "Entrypoint": list,
    "Cmd": list,
    "Volumes": dict,
    "WorkingDir": str,
    "Labels": dict,
    "StopSignal": str,
}
"""The fields that an OCI config has, in the order in which they are written; Docker has more."""
LONGEST = (128 << 10) - 1
"""Bytes of one text: what execve(2) takes as one argument or variable (MAX_ARG_STRLEN)."""
LARGEST = 256 << 10
"""Bytes of all texts but the labels' values: a container's configuration is one file of pmxcfs,
which takes 1 MiB (MEMDB_MAX_FSIZE), and a variable may stand in it more than once."""
MOST = 2_000
"""Entries of all fields; images have some dozens."""

INITS = ("/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd")
"""The programs that images name when they start the services of a distribution."""

_WITH_TABS = ("Env", "Entrypoint", "Cmd")
_JSON: Mapping[type, str] = {str: "string", list: "array", dict: "object"}
_UNUSABLE = frozenset({"Cc", "Cs"})  # Unicode's control characters, and halves of surrogate pairs
_REBUILD = "build the image again with a current tool"


def checked_runtime(config: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields of `FIELDS` that say something; `place` names the object in errors.

    An entry of ExposedPorts or Volumes becomes an empty object, which is all that the specification
    allows.  A label whose value has control characters is left out: labels describe the image to
    people, often in several lines, and no container is made from them.  Raise ImageError for a
    field of a wrong type, for a control character anywhere else, and for more or longer texts
    than the bounds allow.
    """
    runtime: dict[str, Any] = {}
    entries = size = 0
    for field, kind in FIELDS.items():
        value = config.get(field)
        if value is None:
            continue
        where = f"{place}.{field}"
        fits = isinstance(value, kind)
        if not fits:
            raise ImageError(f"{where} is not a JSON {_JSON[kind]}", _REBUILD)
        for text in _texts(value, where):
            if _has_controls(text, field):
                raise ImageError(
                    f"{where} has a control character: {text!r:.80}",
                    "no container can be made from it safely; build the image without",
                )
            entries += 1
            size += _size(text, where)
            if entries > MOST or size > LARGEST:
                raise ImageError(
                    f"{place} has more than {MOST} entries, or more than {LARGEST} bytes, up to "
                    f"{field}",
                    "no container's configuration takes that much; put it into a file of the image",
                )
        if field == "Labels":
            value = _labels(value, where)
        elif kind is dict:
            value = {key: {} for key in value}
        if value:
            runtime[field] = value
    return runtime


def is_init(command: Sequence[str]) -> bool:
    """Tell whether a command, with its arguments, starts an init."""
    return bool(command) and command[0] in INITS


def _texts(value: str | list[Any] | dict[str, Any], where: str) -> Iterator[str]:
    """Yield the texts of a field: itself, its elements, or its keys."""
    for text in [value] if isinstance(value, str) else value:
        if not isinstance(text, str):
            raise ImageError(f"{where} has an element that is not a JSON string", _REBUILD)
        yield text


def _size(text: str, where: str) -> int:
    """Return the bytes of a text; raise ImageError when they are more than Linux takes."""
    size = len(text.encode())
    if size > LONGEST:
        raise ImageError(
            f"{where} has a text of {size} bytes, more than the {LONGEST} that Linux takes",
            "put it into a file of the image",
        )
    return size


def _labels(value: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the labels whose values have no control characters."""
    if not all(isinstance(text, str) for text in value.values()):
        raise ImageError(f"{where} has a value that is not a JSON string", _REBUILD)
    return {key: text for key, text in value.items() if not _has_controls(text, "Labels")}


def _has_controls(text: str, field: str) -> bool:
    """Tell whether a text has control characters (C0, DEL, C1), or is no Unicode.

    A tab may stand in what is run: continued lines of Dockerfiles bring it there, and Proxmox VE's
    own patterns for `env` and `entrypoint` allow it.
    """
    if field in _WITH_TABS:
        text = text.replace("\t", "")
    return not text.isprintable() and any(unicodedata.category(c) in _UNUSABLE for c in text)
