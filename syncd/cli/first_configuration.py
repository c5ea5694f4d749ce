"""A first configuration: what was answered, as the text of its file and the secrets beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from syncd import __version__
from syncd.cli.first_files import NewFile, secret_file, write
from syncd.cli.first_images import RegistryLogin, WatchedTag, image_tables
from syncd.cli.first_target import FirstTarget
from syncd.config import DEFAULT_PATH, Value, configuration_text

_HEAD = """\
syncd's configuration, written by `syncd init` of syncd {version}.
Every key with its default: docs/configure.md, and on Debian /usr/share/doc/syncd/configure.md.
Check a change with `syncd check`, put it in force with `systemctl reload syncd`.
"""


@dataclass(frozen=True, slots=True)
class FirstConfiguration:
    """What was answered; the configuration becomes the file `path`.

    `token_secret` is empty where it is not known yet: then its file is named, and not written.
    """

    path: Path
    watched: tuple[WatchedTag, ...]
    logins: tuple[RegistryLogin, ...]
    target: FirstTarget
    token_secret: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The text of the configuration."""
        return configuration_text(_HEAD.format(version=__version__), self._tables())

    @property
    def webhook_secret(self) -> Path:
        """The file of the secret that GitHub signs with."""
        return self.path.parent / "webhook-secret"

    @property
    def token_file(self) -> Path:
        """The file of the cluster's token."""
        return self.path.parent / "pve-token"

    @property
    def secrets(self) -> list[Path]:
        """The files of secrets that the configuration names."""
        named = ("webhook_secret_file", "api_token_file", "password_file", "token_secret_file")
        return [
            Path(str(table[key])) for _, table in self._tables() for key in named if key in table
        ]

    def write(self) -> list[Path]:
        """Ensure that all files are there, the configuration last; return those that were written.

        Raise StorageError.
        """
        return [file.path for file in self._files() if write(file)]

    def _files(self) -> Iterator[NewFile]:
        yield secret_file(self.webhook_secret)
        yield secret_file(self._api_token)
        for login in self.logins:
            if login.username is not None:
                yield secret_file(self._password(login), login.password)
        if self.token_secret:
            yield secret_file(self.token_file, self.token_secret)
        if self.target.unreadable_ca is not None:
            yield NewFile(self._ca, self.target.unreadable_ca.read_text(encoding="utf-8"))
        yield NewFile(self.path, self.text)

    def _tables(self) -> list[tuple[str, dict[str, Value]]]:
        server: dict[str, Value] = {
            "webhook_secret_file": self.webhook_secret,
            "api_token_file": self._api_token,
        }
        tables = [("server", server)]
        if self.path != DEFAULT_PATH:
            tables.append(("state", {"directory": self.path.parent / "syncd-state"}))
        tables += [("registry", self._registry(login)) for login in self.logins]
        tables += [("image", table) for table in image_tables(self.watched)]
        target = dict(self.target.table)
        if self.target.commands:
            target["token_secret_file"] = self.token_file
        if self.target.unreadable_ca is not None:
            target["ca_file"] = self._ca
        return [*tables, ("target", target)]

    def _registry(self, login: RegistryLogin) -> dict[str, Value]:
        table: dict[str, Value] = {"host": login.host}
        if login.username is not None:
            table |= {"username": login.username, "password_file": self._password(login)}
        return table | ({"plain_http": True} if login.plain_http else {})

    def _password(self, login: RegistryLogin) -> Path:
        return self.path.parent / f"registry-{re.sub('[^A-Za-z0-9.-]', '_', login.host)}"

    @property
    def _api_token(self) -> Path:
        return self.path.parent / "api-token"

    @property
    def _ca(self) -> Path:
        """The copy of the cluster's CA, which is no secret."""
        return self.path.parent / "pve-root-ca.pem"
