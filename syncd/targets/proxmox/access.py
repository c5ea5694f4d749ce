"""The settings that the Proxmox VE target needs; the model of the configuration has them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol


class ClusterAccess(Protocol):
    """How to reach a cluster, and which storage, bridge and pool syncd uses there."""

    @property
    def name(self) -> str:
        """The target's name."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """URLs of nodes; empty where syncd runs `pvesh` as root on a node."""

    @property
    def token_id(self) -> str | None:
        """The id of the API token, `USER@REALM!NAME`; None without an endpoint."""

    @property
    def ca_file(self) -> Path | None:
        """The file with the CA that issued the nodes' certificates; None for the public CAs."""

    @property
    def fingerprint(self) -> str | None:
        """The SHA-256 fingerprint of the only certificate that is trusted; None to use the CA."""

    @property
    def storage(self) -> str | None:
        """The storage of templates; None for the largest storage that is enabled for them."""

    @property
    def publish(self) -> Literal["upload", "path"]:
        """Whether templates are uploaded, or written where the storage is mounted."""

    @property
    def records(self) -> bool:
        """Whether each template has a record beside it, where this host writes its folder."""

    @property
    def reserve(self) -> int:
        """The bytes of a storage that stay free."""

    @property
    def bridge(self) -> str:
        """The bridge to which containers are connected."""

    @property
    def rootfs_storage(self) -> str | None:
        """The storage of containers' root file systems; None for the largest enabled storage."""

    @property
    def pool(self) -> str | None:
        """The pool of which containers become members; None for no pool."""

    def token_secret(self) -> str | None:
        """Return the current secret of the API token."""
