"""What `targets.record` promises: a template's record is written whole, and read with suspicion."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import PublishError
from syncd.formats import Format
from syncd.oci.reference import Digest, Platform, Reference
from syncd.targets.beside import remove_beside
from syncd.targets.record import TemplateRecord, read_record, write_record

NAME = "ghcr.io_acme_base_latest_0123456789ab.tar.zst"
RECORD = TemplateRecord(
    name=NAME,
    reference=Reference.parse("ghcr.io/acme/base:latest"),
    platform=Platform.parse("linux/amd64"),
    format=Format.ROOTFS,
    digest=Digest.of(b"index"),
    manifest_digest=Digest.of(b"manifest"),
    config_digest=Digest.of(b"config"),
    diff_ids=(Digest.of(b"layer"),),
    size=8,
    file_digest=Digest.of(b"template"),
    created=datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC),
    syncd_version="1.2.3",
    warnings=("it runs as root",),
)


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(RECORD.text()) | fields).encode()


def test_written(tmp_path: Path) -> None:
    """A record is a file beside the template that everybody may read, and is read as it was."""
    write_record(tmp_path, RECORD)
    (file,) = tmp_path.iterdir()
    assert file.name == f"{NAME}.json"
    assert file.stat().st_mode & 0o777 == 0o644
    assert read_record(tmp_path, NAME) == RECORD
    newer = replace(RECORD, size=9)
    write_record(tmp_path, newer)
    assert read_record(tmp_path, NAME) == newer
    remove_beside(tmp_path, NAME, ".json")
    remove_beside(tmp_path, NAME, ".json")
    assert read_record(tmp_path, NAME) is None


def test_newer_keys() -> None:
    """What a later syncd adds is passed over."""
    assert TemplateRecord.parse(changed(attestations=[{}])) == RECORD


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        changed(syncd=2),
        changed(size="8"),
        changed(digest="sha256:0"),
        changed(diff_ids=None),
        changed(reference=5),
        changed(platform="linux"),
        changed(format="zip"),
        changed(created="yesterday"),
    ],
)
def test_no_record(tmp_path: Path, text: bytes) -> None:
    """Anything else under the name of a record is an error that names the file."""
    (tmp_path / f"{NAME}.json").write_bytes(text)
    with pytest.raises(PublishError, match=r"\.json cannot be used.*remove it"):
        read_record(tmp_path, NAME)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.symlink_to("/etc/passwd"), "cannot be read"),
        (os.mkfifo, "no regular file"),
        (Path.mkdir, "cannot be read|no regular file"),
        (lambda file: file.write_bytes(b" " * (1 << 20) + b"{}"), "more than 1048576 bytes"),
    ],
)
def test_hostile(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    """A symlink is not followed, a pipe not waited for, and no more is read than a record has."""
    make(tmp_path / f"{NAME}.json")
    with pytest.raises(PublishError, match=message):
        read_record(tmp_path, NAME)


def test_in_the_way(tmp_path: Path) -> None:
    """A folder that refuses is an error, as is a name that no file can take."""
    (tmp_path / f"{NAME}.json").mkdir()
    with pytest.raises(PublishError, match="is no file"):
        write_record(tmp_path, RECORD)
    with pytest.raises(PublishError, match="cannot be deleted"):
        remove_beside(tmp_path, NAME, ".json")
