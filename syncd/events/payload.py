"""The JSON of a delivery, read as far as its types are right.

Whatever has another type than its documentation says counts as missing.  Nothing here raises
anything but EventError, however the bytes are chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from syncd.errors import EventError, InvalidReferenceError
from syncd.oci import Reference

ENTRIES_MAX = 10_000
"""Entries of a list that are looked at; one delivery of any sender has a few."""


def json_object(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object that a body is; raise EventError for anything else."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise EventError(f"the delivery's body is not JSON: {exc!s:.100}") from exc
    if not isinstance(payload, dict):
        raise EventError("the delivery's body is not a JSON object")
    return payload


def mapping(value: object) -> Mapping[str, Any]:
    """Return an object, empty for any other value."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """Return a text, empty for any other value."""
    return value if isinstance(value, str) else ""


def entries(value: object) -> Sequence[Mapping[str, Any]]:
    """Return the objects of a list; raise EventError when the list is longer than any is."""
    if not isinstance(value, list):
        return []
    if len(value) > ENTRIES_MAX:
        raise EventError(f"the delivery has a list of more than {ENTRIES_MAX} entries")
    return [entry for entry in value if isinstance(entry, dict)]


def repository_name(registry: str, path: str) -> str | None:
    """Return a repository's full name, without tag and digest, or None where that is no name.

    A registry's host has a dot or a colon, or is `localhost`: else a reference would take it for
    a part of a repository of docker.io.
    """
    if not path or "/" in registry or not ({".", ":"} & {*registry} or registry == "localhost"):
        return None
    try:
        return Reference.parse(f"{registry}/{path}").name
    except InvalidReferenceError:
        return None


def host_of(url: str) -> str:
    """Return the host of an http or https URL, with its port; empty where there is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts.netloc.rpartition("@")[2] if parts.scheme in ("http", "https") else ""
