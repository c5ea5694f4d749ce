"""Where everything below the state's directory lies; spelled here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

STATE = Path("/var/lib/syncd")
"""The state's directory, where nothing else is configured."""


@dataclass(frozen=True, slots=True)
class StatePaths:
    """The paths below `directory`, the value of `state.directory`.

    The names on disk are those of the first release, so that an installed state stays in use.
    """

    directory: Path

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.directory / "ledger.sqlite"

    @property
    def blob_cache(self) -> Path:
        """The folder of blobs as registries serve them, an OCI image layout."""
        return self.directory / "cache"

    @property
    def templates(self) -> Path:
        """The folder of finished templates and of their frame tables."""
        return self.directory / "made"

    @property
    def layers(self) -> Path:
        """The folder of unpacked layers."""
        return self.directory / "unpacked"

    @property
    def scratch(self) -> Path:
        """The folder that has a folder for each running conversion."""
        return self.directory / "spool"

    @property
    def daemon_lock(self) -> Path:
        """The file that the daemon of this state holds a lock on."""
        return self.directory / "daemon.lock"

    @property
    def trust(self) -> Path:
        """The folder of Sigstore's public trust root, as TUF keeps it."""
        return self.directory / "trust"

    @property
    def hook_networks(self) -> Path:
        """The file of the networks that GitHub named last."""
        return self.directory / "hook-networks.json"

    @property
    def socket(self) -> Path:
        """The Unix socket of the daemon of this state, where nothing else is configured.

        Two states never share one.  The usual state's is where a member of the group gets to: the
        state itself is for the service alone.
        """
        if self.directory == STATE:
            return Path("/run/syncd/syncd.sock")
        return self.directory.absolute() / "syncd.sock"

    @property
    def locks(self) -> Path:
        """The folder of locks that the targets of one host share."""
        return self.directory / "locks"

    @property
    def landmarks(self) -> Path:
        """The folder of files that remember which folders of targets have been there."""
        return self.directory / "targets"
