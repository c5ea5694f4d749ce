"""Who besides GitHub may say that something was pushed: the tables `[[sender]]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from syncd.config import secret
from syncd.config.fields import registry_host
from syncd.config.section import Section
from syncd.errors import ConfigError

SenderType = Literal["distribution", "harbor", "quay", "dockerhub", "gitea", "generic"]
"""The kinds of senders, each with the path `/webhooks/TYPE`."""

_IN_PATH = ("quay", "dockerhub")
"""Those that have no place for a secret but the path."""
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")
"""What a URL has as it is (RFC 3986, 2.3)."""


class SenderSettings(Section):
    """One sender, known by a secret of its own."""

    type: SenderType
    secret_file: Path
    registry: Annotated[str, AfterValidator(registry_host)] | None = None

    def secret(self) -> str | None:
        """Return the secret that the sender shows or signs with, read from its file now.

        Raise ConfigError when there is none, or when it has to stand in a path and cannot.
        """
        found = secret.read(self.secret_file)
        if found is not None and self.type in _IN_PATH and not _UNRESERVED.fullmatch(found):
            raise ConfigError(
                f"the secret in {self.secret_file} has characters that a path cannot have",
                hint="make one with: openssl rand -hex 32",
            )
        return found
