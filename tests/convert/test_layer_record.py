"""What `convert.layer_record` promises: a record is read as it was written, or known to be bad."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from blake3 import blake3

from syncd.convert.layer_record import LayerRecord
from syncd.errors import StorageError
from syncd.tar.member import CHARACTER_DEVICE, DIRECTORY, FILE, SYMLINK, Member

CONTENTS = bytes(range(256)) * 20
MEMBERS = [
    Member(b"./", DIRECTORY, 0o755, 0, 0, -1),
    Member(b"caf\xe9\n\"", FILE, 0o4755, 1 << 40, (1 << 32) - 2, 1_600_000_000_123_456_789,
           size=5, xattrs={b"user.\xff": b"\0\xff"}, extents=((0, 2, 7), (4, 1, 9))),
    Member(b"large", FILE, 0o644, 0, 0, 0, size=1 << 40, frames=[bytes(32), b"\xfe" * 32]),
    Member(b"link", SYMLINK, 0o777, 0, 0, 0, target=b"\x80/../x"),
    Member(b"acls", DIRECTORY, 0o750, 0, 0, 0, access_acl=b"user:\xff:rwx\n",
           default_acl=b"other::---\n"),
    Member(b"null", CHARACTER_DEVICE, 0o666, 0, 0, 0, device=(1, 3)),
]  # fmt: skip
RECORD = LayerRecord(MEMBERS, 12345, 678, 4095, 1 << 40)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file as the spool does, behind whose contents a record is written."""
    with path.open("w+b", buffering=0) as file:
        file.write(CONTENTS)
        yield cast(BinaryIO, file)


@pytest.mark.parametrize("members", [[], MEMBERS, MEMBERS * 300])
def test_read_as_written(members: list[Member], tmp_path: Path) -> None:
    """Members of every kind come back, and the contents before them are untouched."""
    record = LayerRecord(members, 12345, 678, 4095, 1 << 40)
    with opened(tmp_path / "kept") as file:
        record.write(file)
        assert LayerRecord.read(file) == record
        assert os.pread(file.fileno(), len(CONTENTS), 0) == CONTENTS


def test_memory(tmp_path: Path) -> None:
    """Writing and reading many large attributes takes little more memory than they do."""
    value = bytes(range(256)) * 256
    members = [
        Member(b"%d" % i, FILE, 0o644, 0, 0, 0, xattrs={b"user.a": value}) for i in range(200)
    ]
    with opened(tmp_path / "kept") as file:
        tracemalloc.start()
        LayerRecord(members, 0, 0, 4095, 1 << 20).write(file)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert len(LayerRecord.read(file).members) == 200
        read = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert written < 4 << 20
    assert read < 4 * 200 * len(value)


def test_any_damage(tmp_path: Path) -> None:
    """Whatever byte is another one, the record is bad; and wherever the file is cut."""
    path = tmp_path / "kept"
    with opened(path) as file:
        RECORD.write(file)
    whole = path.read_bytes()
    noise = random.Random(3)
    for _ in range(300):
        at = noise.randrange(len(whole))
        cut = whole[:at]
        for damaged in (cut, cut + bytes([whole[at] ^ 1 << noise.randrange(8)]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            with path.open("rb", buffering=0) as file, pytest.raises(StorageError, match="kept"):
                LayerRecord.read(cast(BinaryIO, file))


@pytest.mark.parametrize("version", [b"4", b"6"])
def test_another_version(version: bytes, tmp_path: Path) -> None:
    """What another version of syncd kept is bad, even if it is whole: version 4 had other rows."""
    path = tmp_path / "kept"
    with opened(path) as file:
        RECORD.write(file)
        other = path.read_bytes()[:-32].replace(b"syncd layer 5", b"syncd layer " + version)
        os.truncate(path, 0)
        os.pwrite(file.fileno(), other + _digest_of(other), 0)
        with pytest.raises(StorageError, match="another version"):
            LayerRecord.read(file)


def _digest_of(content: bytes) -> bytes:

    return blake3(content).digest()
