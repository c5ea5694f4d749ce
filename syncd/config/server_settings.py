"""Where the server listens, who may call for what, and its secrets: the table `[server]`."""

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
from syncd.config.on_demand import check_on_demand, meets
from syncd.config.section import Section
from syncd.oci import Reference


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
    create_token_file: Path | None = None
    sync_token_file: Path | None = None
    read_token_file: Path | None = None
    on_demand: tuple[Annotated[str, AfterValidator(check_on_demand)], ...] = ()
    settle: Span = timedelta(seconds=2)

    def webhook_secret(self) -> str | None:
        """Return the secret that GitHub signs with, or None when there is none."""
        return secret.read(self.webhook_secret_file, "webhook-secret")

    def api_token(self) -> str | None:
        """Return the bearer token that may do everything, or None when there is none."""
        return secret.read(self.api_token_file, "api-token")

    def create_token(self) -> str | None:
        """Return the bearer token that may make containers, and do what the next may, or None."""
        return secret.read(self.create_token_file, "create-token")

    def sync_token(self) -> str | None:
        """Return the bearer token that may sync and verify, and look, or None."""
        return secret.read(self.sync_token_file, "sync-token")

    def read_token(self) -> str | None:
        """Return the bearer token that may look, or None when there is none."""
        return secret.read(self.read_token_file, "read-token")

    def allows(self, reference: Reference) -> bool:
        """Tell whether a caller of the API may have a reference brought that is not watched."""
        return any(meets(pattern, reference) for pattern in self.on_demand)
