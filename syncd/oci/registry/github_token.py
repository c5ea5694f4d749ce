"""When a token of GitHub ends, such as the password of GitHub's registry: GitHub's API tells it.

GHCR itself refuses an expired token without saying why, for weeks.  The token is sent to nobody but
GitHub, whose it is, and nothing else of the answer is read.

Source: https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/token-expiration-and-revocation
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import requests

from syncd import __version__
from syncd.errors import RegistryError, RegistryUnavailableError

_HEADER = "GitHub-Authentication-Token-Expiration"
_TIMEOUT = (10.0, 10.0)  # seconds to connect, and for the headers


def token_expiry(
    token: str, api: str = "https://api.github.com", ca_file: Path | None = None
) -> datetime | None:
    """Return when a token ends, or None where GitHub names no end.

    `ca_file` is who signed the API's certificate, where that is not public.

    Raise RegistryError when GitHub refuses the token, RegistryUnavailableError when the API gives
    no answer.
    """
    headers = {"Authorization": f"Bearer {token}", "User-Agent": f"syncd/{__version__}"}
    try:
        with requests.Session() as session:
            session.auth = lambda request: request  # nothing of ~/.netrc
            session.verify = True if ca_file is None else str(ca_file)
            # This path counts for no limit of requests.
            with session.get(
                f"{api}/rate_limit",
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
            ) as answer:
                status, told = answer.status_code, answer.headers.get(_HEADER)
    except (requests.RequestException, OSError, ValueError) as exc:
        raise RegistryUnavailableError(f"{api} cannot be asked: {type(exc).__name__}") from exc
    if status == 401:
        raise RegistryError(
            "GitHub does not know this token (401)",
            "it was revoked, or has expired: make another one",
        )
    return _moment(told) if told else None


def _moment(text: str) -> datetime | None:
    """Return the moment that is written like 2027-10-12 09:00:00 UTC, or with +0200."""
    try:
        return datetime.strptime(text.strip().replace("UTC", "+0000"), "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None
