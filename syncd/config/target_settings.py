"""Where templates go: the tables `[[target]]`, one kind for each type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, StrictBool, model_validator

from syncd.config import secret
from syncd.config.section import Section

TARGET_NAME = Field(
    pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$",
    examples=["cluster: a letter, then letters, digits, _, . and -"],
)
"""What a target and a profile may be called."""


class DirectoryTargetSettings(Section):
    """A folder laid out as a PVE `dir` storage."""

    name: Annotated[str, TARGET_NAME]
    type: Literal["directory"]
    path: Path
    is_mountpoint: StrictBool | Path = False
    reserve: ByteSize = ByteSize(256 << 20)
    records: StrictBool = False

    @property
    def mountpoint(self) -> Path | None:
        """The folder that has to be a mount point, or None."""
        if isinstance(self.is_mountpoint, bool):
            return self.path if self.is_mountpoint else None
        return self.is_mountpoint


class ProxmoxTargetSettings(Section):
    """A storage of a Proxmox VE cluster."""

    name: Annotated[str, TARGET_NAME]
    type: Literal["proxmox"]
    endpoints: Annotated[
        tuple[Annotated[str, Field(pattern=r"^https://[^/\s]+$")], ...],
        Field(examples=["https://10.0.0.11:8006"]),
    ] = ()
    token_id: Annotated[
        str | None,
        Field(pattern=r"^[^@!\s]+@[^@!\s]+![^@!\s]+$", examples=["syncd@pve!sync"]),
    ] = None
    token_secret_file: Path | None = None
    ca_file: Path | None = None
    fingerprint: Annotated[
        str | None,
        Field(
            pattern=r"^([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}$",
            examples=["AB:CD:...: 32 bytes in hex, as `pvenode cert info` shows them"],
        ),
    ] = None
    storage: str | None = None
    publish: Literal["upload", "path"] = "upload"
    reserve: ByteSize = ByteSize(256 << 20)
    records: StrictBool = False
    bridge: Annotated[str, Field(pattern=r"^[-_.A-Za-z0-9]+$", examples=["vmbr0"])] = "vmbr0"
    rootfs_storage: str | None = None
    pool: str | None = None

    @model_validator(mode="after")
    def _reachable(self) -> ProxmoxTargetSettings:
        if self.endpoints and not (self.token_id and self.token_secret_file):
            raise ValueError("endpoints need token_id and token_secret_file")
        if self.ca_file and self.fingerprint:
            raise ValueError("give ca_file or fingerprint, not both")
        if self.records and self.endpoints and self.publish != "path":
            raise ValueError('records need publish = "path": the API takes no upload of them')
        return self

    def token_secret(self) -> str | None:
        """Return the API token's secret, read from its file now."""
        return secret.read(self.token_secret_file)


TargetSettings = Annotated[
    DirectoryTargetSettings | ProxmoxTargetSettings, Field(discriminator="type")
]
