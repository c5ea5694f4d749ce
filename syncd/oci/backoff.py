"""How often a registry is asked again, and how long is waited before each attempt.

Pure.  The waits double, and are spread at random, so that many clients of a registry that comes
back do not ask it at the same moment.
"""

from __future__ import annotations

import random

ATTEMPTS = 5
"""Attempts in all before a fault that may pass is reported."""
LONGEST_WAIT = 60.0
"""Seconds that an attempt is waited for at most."""


def backoff(attempt: int, least: float = 0.0) -> float:
    """Return the seconds to wait after attempt number `attempt`: `least` or more, 60 at most."""
    seconds = 0.25 * 2.0**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - no secret depends on it
    return min(max(seconds, least), LONGEST_WAIT)
