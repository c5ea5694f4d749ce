"""The target of a first configuration: a folder of this host, or a storage of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from syncd.cli.questions import Questions
from syncd.config import DirectoryTargetSettings, Value, check_value

_STORAGE = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]")  # pve-storage-id
_FOLDER = Path("/var/lib/vz")
"""Where the storage `local` of a Proxmox VE host is."""


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the options say of the target; None and the empty tuple leave it to a question."""

    directory: str | None = None
    endpoints: tuple[str, ...] = ()
    token_id: str | None = None
    token_secret_file: Path | None = None
    trust: str | None = None
    storage: str | None = None
    delete: bool | None = None
    rootfs_storage: str | None = None
    bridge: str | None = None
    pool: str | None = None
    grant: bool | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether an option is about a cluster."""
        return bool(self.endpoints or self.token_id or self.trust)


@dataclass(frozen=True, slots=True)
class FirstTarget:
    """The table of the target, and what has to be there for it.

    `folder` is where a directory target publishes.  `commands` make the token of a cluster, and
    `unreadable_ca` is the file of its CA where users other than root may not read that.
    """

    table: dict[str, Value]
    folder: Path | None = None
    unreadable_ca: Path | None = None
    commands: tuple[str, ...] = ()


def ask_directory(questions: Questions, options: TargetOptions) -> FirstTarget:
    """Return a folder of this host as the target."""
    default = str(_FOLDER) if _FOLDER.is_dir() else None
    path = questions.answer(
        "The folder, as of a storage of type dir",
        "--directory",
        _folder,
        options.directory,
        default,
    )
    name = questions.answer(
        "What Proxmox VE calls that storage", "--storage", storage_name, options.storage, "local"
    )
    table: dict[str, Value] = {"name": name, "type": "directory", "path": path}
    return FirstTarget(table, folder=path)


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ValueError(f"{text!r} is no absolute path")
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}: make it, or name another one")
    return path


def storage_name(text: str) -> str:
    """Return the name of a storage; raise ValueError unless it is one, and one of a target."""
    if not _STORAGE.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a storage")
    check_value(DirectoryTargetSettings, "name", text)
    return text
