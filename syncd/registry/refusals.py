"""What a registry says when it refuses, turned into our errors.

Sources: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes; for
GHCR's way of asking for patience, its answers.
"""

from __future__ import annotations

import json
import re

import requests
import urllib3.exceptions

from syncd.errors import NotFoundError, RegistryError, RegistryUnavailableError

PASSING = {408, 429, 500, 502, 503, 504}
"""Statuses after which the same request may succeed."""

_GO_PART = r"([0-9]+(?:\.[0-9]+)?)(ns|µs|us|ms|s|m|h)"
_GO_WAIT = re.compile(rf"retry-after:\s*((?:{_GO_PART})+)")
_GO_UNITS = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Passing(Exception):  # noqa: N818 - it is caught before anybody sees it
    """A refusal that can pass, met where only a login was expected."""

    def __init__(self, fault: RegistryError, least: float) -> None:
        super().__init__(fault)
        self.fault = fault
        self.least = least


def refusal(answer: requests.Response, host: str, subject: str) -> tuple[RegistryError, float]:
    """Turn a refusal into an error, and the seconds the registry wants us to wait."""
    try:
        body = answer.raw.read(64 << 10, decode_content=True).decode("utf-8", "replace")
    except (urllib3.exceptions.HTTPError, OSError):
        body = ""
    said = _said(body) or answer.reason or ""
    status = answer.status_code
    limited = status == 403 and "rate limit" in body.lower()
    if status in PASSING or limited:
        return (
            RegistryUnavailableError(
                f"registry {host} answers {status} for {subject}: {said}",
                "it is overloaded or limits us; the next trigger tries again",
            ),
            _wanted_wait(answer, body),
        )
    if status in (401, 403, 404):
        return NotFoundError(
            f"registry {host} has no {subject}, or gives no access to it ({status} {said})",
            f"check the name, and username and password_file of [[registry]] host {host!r}",
        ), 0.0
    return RegistryError(f"registry {host} answers {status} for {subject}: {said}"), 0.0


def _said(body: str) -> str:
    """Return the registry's own words (distribution-spec, "Error Codes")."""
    try:
        errors = json.loads(body)["errors"]
        return "; ".join(f"{e['code']}: {e.get('message', '')}" for e in errors)[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _wanted_wait(answer: requests.Response, body: str) -> float:
    """Return the seconds to wait: from Retry-After, or from the message, as GHCR does it.

    GHCR writes Go's durations there, `1m30s` (https://pkg.go.dev/time#Duration.String).
    """
    seconds = answer.headers.get("Retry-After", "")
    if seconds.isdecimal():
        return float(seconds)
    match = _GO_WAIT.search(body)
    parts = re.findall(_GO_PART, match[1]) if match else []
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)
