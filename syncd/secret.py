"""Secrets: read from files when they are needed, and never kept.

Under systemd a file that is not configured may be a credential instead (systemd.exec(5),
"LoadCredential="), so that a service reads what its user could not.
"""

from __future__ import annotations

import os
from pathlib import Path

from syncd.errors import ConfigError

_LONGEST = 64 << 10  # characters


def read(file: Path | None, credential: str = "") -> str | None:
    """Return the secret in `file`, without surrounding space.

    Where no file is configured, the systemd credential of that name is read; None when there is
    none.  Raise ConfigError when what there is cannot be read, is empty, or too long.
    """
    if file is None:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        file = Path(folder, credential) if folder and credential else None
        if file is None or not file.exists():
            return None
    try:
        with file.open(encoding="utf-8") as opened:
            secret = opened.read(_LONGEST + 1).strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"the secret file {file} cannot be read: {exc}", hint="check its path and owner"
        ) from exc
    if len(secret) > _LONGEST:
        raise ConfigError(f"the secret file {file} is too long to hold a secret")
    if not secret:
        raise ConfigError(f"the secret file {file} is empty")
    return secret
