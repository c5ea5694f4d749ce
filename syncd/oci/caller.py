"""What a caller logs in to a registry with, for one pull: in memory alone, and shown nowhere.

A caller who gives nothing is asked for anonymously: what this host itself could open is none of the
caller's business.  The values are in no representation, cannot be pickled, and compare by identity,
so that nothing is ever found by them.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from syncd.oci.access import RegistryAccess


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CallerLogin:
    """A login with name and password, or a token that the registry takes as it is, or nothing.

    `mark` names the login on this host without telling it.  Setting `cancelled` ends what is done
    with it.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_given(self) -> bool:
        """Whether the caller gave anything: what is brought with it is not for everybody."""
        return bool(self.password or self.token)

    def __reduce__(self) -> NoReturn:
        """Refuse to be written anywhere, or sent to another process."""
        raise TypeError("what a caller logs in with stays in this process")


@dataclass(frozen=True, slots=True, eq=False)
class CallerAccess:
    """A registry as it is configured, opened with what a caller gave and with nothing else."""

    registry: RegistryAccess = field(repr=False)
    login: CallerLogin

    @property
    def host(self) -> str:
        """The registry's host, with a port if it has one."""
        return self.registry.host

    @property
    def username(self) -> str | None:
        """The name to log in with; one that stands for a token; or None for anonymous access."""
        return self.login.username or ("a token" if self.login.token else None)

    @property
    def plain_http(self) -> bool:
        """Whether to speak HTTP."""
        return self.registry.plain_http

    @property
    def ca_file(self) -> Path | None:
        """Who signed the registry's certificate; None for the public authorities."""
        return self.registry.ca_file

    def credentials(self) -> tuple[str, str] | None:
        """Return name and password; None means anonymous, or a token alone."""
        login = self.login
        return (login.username, login.password) if login.password else None
