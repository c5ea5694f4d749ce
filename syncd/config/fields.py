"""The values of single keys: spans of time, rates, hosts, repositories, addresses, cron.

Each is checked where it is read, and refused with a sentence that says how to write it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ByteSize

from syncd.config.cron import cron_trigger
from syncd.errors import ConfigError, SyncdError
from syncd.oci import Platform, Reference

SPAN_WORDS = "write a span of time like 90s, 5m, 1h30m or 30d"
"""What is said of a text that is no span of time."""
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

SOCKET_PATH_MAX = 107
"""Bytes of a Unix socket's path: sun_path has 108, and the last one is 0 (unix(7))."""

GITHUBS_NETWORKS = "github"
"""What stands for the networks that GitHub names itself."""

_RATE = re.compile(r"([0-9.]+ *[A-Za-z]*)(?:/s)?")


def parse_span(text: str) -> timedelta:
    """Return the span of time that is written like `90s`, `1h30m` or `30d`; raise ValueError."""
    match = _SPAN.fullmatch(text)
    if not text or not match:
        raise ValueError(SPAN_WORDS)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError as exc:
        raise ValueError("this span of time is beyond measure") from exc


def _span(value: object) -> object:
    return parse_span(value) if isinstance(value, str) else value


def _off(value: object) -> object:
    return None if value == "off" else _span(value)


def _per_second(value: object) -> object:
    """Read a rate like `16KiB/s`, as what ByteSize takes."""
    if not isinstance(value, str):
        return value
    match = _RATE.fullmatch(value)
    if not match:
        raise ValueError("write a rate like 16KiB/s or 1MB/s")
    return match[1]


def parsed(parse: Callable[[str], object]) -> AfterValidator:
    """Make a validator of a parser that raises our own errors."""

    def check(value: str) -> str:
        try:
            parse(value)
        except SyncdError as exc:
            raise ValueError(str(exc)) from exc
        return value

    return AfterValidator(check)


def check_platforms(values: tuple[str, ...]) -> tuple[str, ...]:
    """Check one or several platforms, each named once."""
    try:
        known = [Platform.parse(value) for value in values]
    except SyncdError as exc:
        raise ValueError(str(exc)) from exc
    if len(set(known)) < len(known):
        raise ValueError("a platform is there twice")
    return values


def one_or_several(value: object) -> object:
    """Take a text for a list of itself."""
    return (value,) if isinstance(value, str) else value


def check_repository(value: str) -> None:
    """Check that a repository is named, without tag or digest."""
    reference = Reference.parse(value)
    if reference.tag or reference.digest:
        raise ConfigError("the repository carries a tag or digest", hint="list tags under tags")


def registry_host(value: str) -> str:
    """Return a registry's host as references name it, so that `index.docker.io` is found too."""
    try:
        return Reference.parse(f"{value}/owner/image").registry
    except SyncdError as exc:
        raise ValueError(str(exc)) from exc


def network(value: str) -> str:
    """Return an address or a network of addresses as it is compared; not that of everybody."""
    try:
        found = ip_network(value)
    except ValueError as exc:
        raise ValueError(
            "write an address or a network like 192.0.2.0/24 or 2001:db8::/32"
        ) from exc
    if not found.prefixlen:
        raise ValueError("this network is everybody: leave the key out instead")
    return str(found)


def hook_source(value: str) -> str:
    """Return a network that deliveries may come from, or the word for GitHub's own ones."""
    return value if value == GITHUBS_NETWORKS else network(value)


def cron_line(value: str) -> str:
    """Check a line of cron, in five fields."""
    cron_trigger(value)
    return value


def listen_address(value: str) -> str:
    """Check that the port is one: the pattern has seen to the rest."""
    if int(value.rpartition(":")[2]) > 65535:
        raise ValueError("the port is beyond 65535")
    return value


def socket_path(value: Path) -> Path:
    """Check that a Unix socket can have this path (unix(7), sun_path)."""
    if not value.is_absolute() or len(os.fsencode(value)) > SOCKET_PATH_MAX:
        raise ValueError(f"write an absolute path of at most {SOCKET_PATH_MAX} bytes")
    return value


Span = Annotated[timedelta, BeforeValidator(_span)]
"""A span of time, written like `1h30m`."""

SpanOrOff = Annotated[timedelta | None, BeforeValidator(_off)]
"""A span of time, or `off`, which is None."""

Rate = Annotated[ByteSize, BeforeValidator(_per_second)]
"""Bytes a second, written like `16KiB/s`; 0 where there is no bound."""
