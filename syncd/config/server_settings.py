"""Where the server listens, who may call, and its secrets: the table `[server]`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from syncd.config import secret
from syncd.config.fields import (
    Span,
    hook_source,
    listen_address,
    network,
    one_or_several,
    socket_path,
)
from syncd.config.section import Section


class ServerSettings(Section):
    """Where HTTP is listened on, for the network and for commands, and its secrets."""

    listen: Annotated[
        str,
        Field(
            pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}$",
            examples=["127.0.0.1:8750 or [::1]:8750"],
        ),
        AfterValidator(listen_address),
    ] = "127.0.0.1:8750"
    socket: Annotated[Path, AfterValidator(socket_path)] | None = None
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\[\]-]{1,255}$")], ...] = ()
    proxies: tuple[Annotated[str, AfterValidator(network)], ...] = ()
    hook_addresses: Annotated[
        tuple[Annotated[str, AfterValidator(hook_source)], ...],
        Field(min_length=1, max_length=1000),
        BeforeValidator(one_or_several),
    ] = ()
    webhook_secret_file: Path | None = None
    api_token_file: Path | None = None
    sync_token_file: Path | None = None
    settle: Span = timedelta(seconds=2)

    def webhook_secret(self) -> str | None:
        """Return the secret that GitHub signs with, or None when there is none."""
        return secret.read(self.webhook_secret_file, "webhook-secret")

    def api_token(self) -> str | None:
        """Return the bearer token of the API, or None when there is none."""
        return secret.read(self.api_token_file, "api-token")

    def sync_token(self) -> str | None:
        """Return the bearer token that may sync and verify alone, or None when there is none."""
        return secret.read(self.sync_token_file, "sync-token")
