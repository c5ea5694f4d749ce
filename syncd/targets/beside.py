"""Files beside a template, for whoever looks into the storage: what the image says of itself.

Proxmox VE lists no file with such an ending.  They go when their template goes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from syncd.errors import PublishError, StorageError
from syncd.files import atomic_write
from syncd.targets.target import Target

ATTESTATIONS = ".intoto.jsonl"
"""What the name gets behind the template's: in-toto attestations as JSON Lines
(https://github.com/in-toto/attestation/blob/main/spec/v1/bundle.md)."""


@runtime_checkable
class ReadableTarget(Target, Protocol):
    """A target in whose folder this host writes, so that it can put a file beside a template."""

    def put_beside(self, name: str, content: bytes) -> bool:
        """Ensure that a file with the content lies beside the template `name`, wherever that goes.

        Return False where this host writes no folder.  Raise PublishError when one refuses.
        """


def write_beside(folder: Path, name: str, ending: str, content: bytes) -> None:
    """Ensure that a folder has a file of this ending beside a template; raise PublishError."""
    try:
        with atomic_write(folder / f"{name}{ending}") as output:
            os.fchmod(output.fileno(), 0o644)
            output.write(content)
    except StorageError as exc:
        raise PublishError(exc.what, exc.hint) from exc


def remove_beside(folder: Path, name: str, ending: str) -> None:
    """Ensure that a folder has no file of this ending beside a template; raise PublishError."""
    file = folder / f"{name}{ending}"
    try:
        file.unlink(missing_ok=True)
    except OSError as exc:
        raise PublishError(f"{file} cannot be deleted: {exc.strerror}") from exc
