"""Secrets: read from files when they are needed, and never kept.

Under systemd a secret may be a credential instead (systemd.exec(5), "LoadCredential="), so that a
service reads what its user could not: one that no file is configured for, or the credential that
has the name of a configured file.  So one configuration names files that root can read in a shell
and systemd hands over to the service.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from syncd.errors import ConfigError, why_unread

_LONGEST = 64 << 10  # characters
_MAKE = "openssl rand -hex 32"
_SHORTEST = 16  # characters that nobody guesses, if they are random


def read(file: Path | None, credential: str = "") -> str | None:
    """Return the secret in `file`, without surrounding space.

    Where no file is configured, the systemd credential of that name is read, and where this user
    may not read the file, the credential of the file's name; None when there is none.  Raise
    ConfigError when what there is cannot be read, is empty, or too long.
    """
    file = _found(file, credential)
    if file is None:
        return None
    try:
        with file.open(encoding="utf-8") as opened:
            secret = opened.read(_LONGEST + 1).strip()
    except (OSError, UnicodeDecodeError) as exc:
        text = isinstance(exc, UnicodeDecodeError)
        raise ConfigError(
            f"the secret file {file} cannot be read: {why_unread(exc)}",
            hint=f"make one with: {_MAKE}" if text else "check its path and owner",
        ) from exc
    if len(secret) > _LONGEST:
        raise ConfigError(f"the secret file {file} is too long to hold a secret")
    if not secret:
        raise ConfigError(f"the secret file {file} is empty")
    return secret


def check(file: Path | None, credential: str = "", *, guessed: bool = False) -> None:
    """Raise ConfigError when a secret's file may be read by others, or the secret is weak.

    `guessed` says that strangers can try as often as they like: then it needs 16 characters.
    """
    file = _found(file, credential)
    if file is None:
        return
    secret = read(file) or ""
    if file.stat().st_mode & stat.S_IRWXO:
        raise ConfigError(
            f"the secret file {file} may be read or written by every user of this host",
            hint=f"chmod o= {file}, and choose another secret if others log in here",
        )
    if guessed and len(secret) < _SHORTEST:
        raise ConfigError(
            f"the secret in {file} has fewer than {_SHORTEST} characters",
            hint=f"make one with: {_MAKE}",
        )


def _found(file: Path | None, credential: str) -> Path | None:
    """Return where a secret is: in the configured file, or in the credential that there is."""
    if file is not None and os.access(file, os.R_OK):
        return file
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    name = file.name if file is not None else credential
    place = Path(folder, name) if folder and name else None
    return place if place is not None and place.exists() else file
