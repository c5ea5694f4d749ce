"""The dead man's switch: a URL that is asked as long as sweeps work, so that silence is noticed.

A service elsewhere (healthchecks.io, Uptime Kuma, Dead Man's Snitch) raises the alarm once nobody
asks any more: a host that is down sends no notification.  The URL is a secret, and is part of no
error and no log.
"""

from __future__ import annotations

import asyncio

PAUSES = (2.0, 10.0)
"""Seconds between the attempts: a lost packet is no reason for an alarm."""
_PATIENCE = 10.0  # seconds for an attempt


async def ping(url: str) -> str | None:
    """Ask the URL until it answers well; return None, or why the last attempt failed."""
    fault = await _ask(url)
    for pause in PAUSES:
        if fault is None:
            break
        await asyncio.sleep(pause)
        fault = await _ask(url)
    return fault


async def _ask(url: str) -> str | None:
    import aiohttp  # only here: a command that asks nobody is to be fast

    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_PATIENCE), trust_env=True
            ) as session,
            session.get(url) as answer,
        ):
            return None if answer.status < 300 else f"it answers {answer.status}"
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return f"it cannot be reached ({type(exc).__name__})"  # the text may name the URL
