"""The logins that other tools left on this machine: `docker login`, `podman login`, helpers.

A registry whose table names no `username` is asked with what `docker` and `podman` would give it,
so that whoever logged in once need not write the password down again.  The files are read anew each
time, since a login expires.  A password is never kept here, and never logged.

Sources: https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md, and
https://docs.docker.com/reference/cli/docker/login/ (credential stores and helpers).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from syncd.errors import ConfigError

_LARGEST = 1 << 20
"""Bytes of a file of logins, and of what a helper answers."""
PATIENCE = 10.0
"""Seconds in which a helper answers; the helper may ask a service of the machine."""
_HELPER = re.compile(r"[A-Za-z0-9_.-]+")
_DOCKER_HUB = "https://index.docker.io/v1/"


def login(
    host: str, environment: Mapping[str, str] = os.environ, *, patience: float = PATIENCE
) -> tuple[str, str] | None:
    """Return username and password that this machine has for a registry, or None.

    The first file that knows the host counts.  A helper has `patience` seconds.  Raise ConfigError
    for a file that is none, and for a helper that fails otherwise than by not knowing the host.
    """
    for path in _files(environment):
        if (known := _read(path)) is not None and (found := _login(path, known, host, patience)):
            return found
    return None


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Return where logins may be, in the order in which skopeo looks."""
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")
    home = environment.get("HOME", "")
    if folder := environment.get("XDG_CONFIG_HOME") or (home and f"{home}/.config"):
        yield Path(folder, "containers", "auth.json")
    if folder := environment.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
        yield Path(folder, "config.json")


def _read(path: Path) -> Mapping[str, Any] | None:
    """Return a file's object; None where no file is, or none that this user may read."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as exc:
        raise ConfigError(f"the logins in {path} cannot be read: {exc.strerror}") from exc
    try:
        known = json.loads(content) if len(content) <= _LARGEST else None
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise ConfigError(
            f"the logins in {path} are no JSON object", hint="log in again, or remove it"
        )
    return known


def _login(
    path: Path, known: Mapping[str, Any], host: str, patience: float
) -> tuple[str, str] | None:
    names = [host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    if host == "docker.io":
        names += [_DOCKER_HUB, "index.docker.io", "registry-1.docker.io"]
    helpers, logins = (_mapping(known.get(key)) for key in ("credHelpers", "auths"))
    for name in names:
        if helper := helpers.get(name):
            return _ask(path, str(helper), name, patience)
    for name in names:
        entry = _mapping(logins.get(name))
        if entry.get("auth"):
            return _decoded(path, name, entry["auth"])
    if store := known.get("credsStore"):
        answers = (_ask(path, str(store), name, patience) for name in names if name in logins)
        return next((answer for answer in answers if answer), None)
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _decoded(path: Path, name: str, encoded: object) -> tuple[str, str]:
    """Read `base64(USER:PASSWORD)`."""
    try:
        text = base64.b64decode(str(encoded), validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise ConfigError(
            f"the login for {name} in {path} is not base64", hint="log in again"
        ) from exc
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise ConfigError(
            f"the login for {name} in {path} is not USER:PASSWORD", hint="log in again"
        )
    return user, password.rstrip("\0")


def _ask(path: Path, helper: str, name: str, patience: float) -> tuple[str, str] | None:
    """Ask a credential helper; None where the helper does not know the name.

    The protocol: https://github.com/docker/docker-credential-helpers#development.
    """
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise ConfigError(f"{path} names a helper {helper!r:.80} that cannot be one")
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the name is checked
            [program, "get"],
            input=name.encode(),
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"no answer in {patience:g} s"
        raise ConfigError(f"{program}, which {path} names, does not work: {reason}") from exc
    if done.returncode:
        if b"credentials not found" in done.stdout + done.stderr:
            return None
        raise ConfigError(
            f"{program}, which {path} names, ended with {done.returncode} for {name}",
            hint=f"try it: echo {name} | {program} get",
        )
    try:
        answer = _mapping(json.loads(done.stdout[:_LARGEST]))
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, RecursionError) as exc:
        raise ConfigError(f"{program} did not answer with Username and Secret") from exc
    if user == "<token>":
        raise ConfigError(
            f"{program} has an identity token for {name}, which syncd cannot use",
            hint="log in with a user name and an access token",
        )
    return user, secret
