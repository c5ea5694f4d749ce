"""The record of a template: a file NAME.json beside the template, on what it was made from.

It is for people who look into a storage, and for another syncd that writes the same storage: with
the record the other one knows what a file has to be, and need not convert the image to find out.
Whoever may write into the folder can write a record, too.  So records are written and believed only
where the configuration asks for that, and a template counts only once its bytes have the digest
that its record tells.

Proxmox VE lists no file with this ending, and takes no upload of one, so there are records only
where this host writes the folder itself.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from syncd.errors import PublishError, SyncdError
from syncd.formats import Format
from syncd.oci import Digest, Platform, Reference
from syncd.targets.beside import write_beside
from syncd.targets.target import Target

RECORD = ".json"
"""What the name of a record gets behind the template's."""
_FORM = 1
"""What `syncd` says in a record; a later form may mean another thing by the same keys."""
_LARGEST = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """What a template was made from, and what its file is.

    `digest` is what the tag meant; `file_digest` and `size` (bytes) are the file's own.  `warnings`
    are sentences on what a container of it will lack.
    """

    name: str
    reference: Reference
    platform: Platform
    format: Format
    digest: Digest
    manifest_digest: Digest
    config_digest: Digest
    diff_ids: tuple[Digest, ...]
    size: int
    file_digest: Digest
    created: datetime
    syncd_version: str
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the record as JSON, which `parse` reads."""
        fields: dict[str, Any] = {
            "syncd": _FORM,
            "name": self.name,
            "reference": str(self.reference),
            "platform": str(self.platform),
            "format": self.format,
            "digest": str(self.digest),
            "manifest_digest": str(self.manifest_digest),
            "config_digest": str(self.config_digest),
            "diff_ids": [*map(str, self.diff_ids)],
            "size": self.size,
            "file_digest": str(self.file_digest),
            "created": self.created.isoformat(),
            "syncd_version": self.syncd_version,
            "warnings": self.warnings,
        }
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a record; raise ValueError for anything else.  Unknown keys are passed over."""
        try:
            fields: Any = json.loads(text)
            if fields["syncd"] != _FORM or not isinstance(fields["size"], int):
                raise ValueError("it has another form")
            return cls(
                str(fields["name"]),
                Reference.parse(fields["reference"]),
                Platform.parse(fields["platform"]),
                Format(fields["format"]),
                Digest.parse(fields["digest"]),
                Digest.parse(fields["manifest_digest"]),
                Digest.parse(fields["config_digest"]),
                tuple(map(Digest.parse, fields["diff_ids"])),
                fields["size"],
                Digest.parse(fields["file_digest"]),
                datetime.fromisoformat(fields["created"]),
                str(fields["syncd_version"]),
                tuple(map(str, fields.get("warnings", ()))),
            )
        except (LookupError, TypeError, AttributeError, RecursionError, SyncdError) as exc:
            raise ValueError(f"it is no record of a template: {exc!s:.200}") from exc


@runtime_checkable
class RecordingTarget(Target, Protocol):
    """A target that may keep a record beside each template.  Every method may raise PublishError.

    Without folders that this host writes, and where none are configured, there are no records.
    """

    def put_record(self, record: TemplateRecord) -> None:
        """Ensure that a template's record lies beside it, wherever this host writes its folder."""

    def record(self, name: str) -> TemplateRecord | None:
        """Return the record beside a template that this host can read; None where there is none."""


def write_record(folder: Path, record: TemplateRecord) -> None:
    """Ensure that a folder has a template's record; raise PublishError."""
    write_beside(folder, record.name, RECORD, record.text().encode())


def read_record(folder: Path, name: str) -> TemplateRecord | None:
    """Return the record of a template in a folder, or None; raise PublishError for another file."""
    file = folder / f"{name}{RECORD}"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise PublishError(f"{file} is no regular file")
            text = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PublishError(f"{file} cannot be read: {exc.strerror}") from exc
    try:
        if len(text) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        return TemplateRecord.parse(text)
    except ValueError as exc:
        raise PublishError(f"{file} cannot be used: {exc}", "remove it") from exc
