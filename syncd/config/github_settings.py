"""What is asked of GitHub's API: the table `[github]`.

Where no webhook is named, those are looked for that lead to syncd, at the owners and repositories
of the watched images: so a token alone is enough for images of ghcr.io.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from syncd.config import secret
from syncd.config.fields import one_or_several
from syncd.config.section import Section
from syncd.errors import ConfigError

_TOKEN = re.compile(r"[!-~]{1,1024}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

# GitHub allows letters, digits and hyphens for an owner, and an underscore of managed users; and
# dots for a repository, but neither . nor .., which would lead elsewhere in a path.
_OWNER = r"[A-Za-z0-9_-]{1,39}"
_REPOSITORY = r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]{1,100}"
_HOOK = rf"(orgs/{_OWNER}|repos/{_OWNER}/{_REPOSITORY})(/hooks/[0-9]{{1,19}})?"
_HOOK_WORDS = "write orgs/ORG or repos/OWNER/REPOSITORY, with /hooks/ID behind it for one webhook"


def _check_hook(value: str) -> str:
    if not re.fullmatch(_HOOK, value):
        raise ValueError(_HOOK_WORDS)
    return value


def _check_api(value: str) -> str:
    """Check that a token can be sent there: over TLS, or to this host."""
    try:
        parts = urlsplit(value)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        right = secure and parts.hostname and parts.port != 0 and value.isascii()
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", value):
        raise ValueError("write a URL like https://github.example.org/api/v3")
    return value.rstrip("/")


class GitHubSettings(Section):
    """How GitHub is asked for the deliveries that failed while nobody took them."""

    token_file: Path | None = None
    hook: Annotated[
        tuple[Annotated[str, AfterValidator(_check_hook)], ...],
        Field(max_length=20),
        BeforeValidator(one_or_several),
    ] = ()
    api: Annotated[str, AfterValidator(_check_api)] = "https://api.github.com"
    ca_file: Path | None = None

    def token(self) -> str | None:
        """Return the token, read from its file now, or None; raise ConfigError for no token."""
        token = secret.read(self.token_file, "github-token")
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigError(
                "the token for GitHub's API has characters that no token has",
                hint="write the token alone into github.token_file, in one line",
            )
        return token
