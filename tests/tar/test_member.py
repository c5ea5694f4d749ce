"""What `member` promises: headers that every tar reads, equal for equal members."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncd.limits import Allowance, Limits
from syncd.tar.member import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    END_OF_ARCHIVE,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Member,
    encode_header,
    padding,
)
from syncd.tar.reader import Parser
from tests.templates import Entry, entries, members

PLAIN = Member(b"./a", FILE, 0o644, 0, 0, 1_600_000_000 * 10**9)
LONG = b"./" + b"d" * 200 + b"/" + b"f" * 200

MEMBERS = [
    PLAIN,
    replace(PLAIN, name=b"./" + b"x" * 98),
    replace(PLAIN, name=b"./" + b"x" * 99),
    replace(PLAIN, name=LONG),
    replace(PLAIN, name=b"./caf\xe9"),
    replace(PLAIN, name=b"./" + b"\xff" * 200),
    replace(PLAIN, name=b"./a\nb=c"),
    replace(PLAIN, name=b"./d/", kind=DIRECTORY, mode=0o3777),
    replace(PLAIN, mode=0o6755),
    replace(PLAIN, mode=0),
    replace(PLAIN, uid=0o7777777, gid=0o7777777),
    replace(PLAIN, uid=0o10000000, gid=(1 << 32) - 2),
    replace(PLAIN, uid=10**19),
    replace(PLAIN, kind=HARD_LINK, target=b"./b"),
    replace(PLAIN, kind=HARD_LINK, target=LONG),
    replace(PLAIN, kind=SYMLINK, target=b"../../\xff"),
    replace(PLAIN, kind=SYMLINK, target=b"t" * 100),
    replace(PLAIN, kind=SYMLINK, target=b"/" + b"t" * 4000),
    replace(PLAIN, kind=CHARACTER_DEVICE, device=(1, 3)),
    replace(PLAIN, kind=BLOCK_DEVICE, device=(4095, 1048575)),
    replace(PLAIN, kind=FIFO),
    replace(PLAIN, mtime=0),
    replace(PLAIN, mtime=1),
    replace(PLAIN, mtime=-1),
    replace(PLAIN, mtime=-1_500_000_000),
    replace(PLAIN, mtime=-2_000_000_000),
    replace(PLAIN, mtime=1_600_000_000_123_456_789),
    replace(PLAIN, mtime=0o77777777777 * 10**9),
    replace(PLAIN, mtime=0o100000000000 * 10**9),
    replace(PLAIN, xattrs={b"security.capability": b"\1\0\0\2\0 \xff\n", b"user.a%3Db": b"="}),
    replace(PLAIN, xattrs={b"user.empty": b""}),
    *(replace(PLAIN, name=b"./" + b"n" * size) for size in (980, 981, 982, 983, 984, 985, 986)),
]


@pytest.mark.parametrize("written", MEMBERS)
def test_round_trip(written: Member) -> None:
    """What is written is read back equal."""
    assert members(encode_header(written) + END_OF_ARCHIVE) == [written]


@pytest.mark.parametrize("written", MEMBERS)
def test_read_by_python(written: Member) -> None:
    """Python's tarfile sees the same member."""
    linked = (
        encode_header(replace(PLAIN, name=written.target)) if written.kind == HARD_LINK else b""
    )
    found = entries(linked + encode_header(written) + END_OF_ARCHIVE)[-1]
    assert found == Entry(
        written.name,
        written.kind,
        written.mode,
        (written.uid, written.gid),
        written.mtime,
        b"",
        written.target,
        written.device,
        {key.decode(): value for key, value in written.xattrs.items()},
    )


@pytest.mark.parametrize("size", [0, 1, 0o77777777777, 0o100000000000, 1 << 40])
def test_sizes(size: int) -> None:
    """A file of any size has it in its header."""
    parser = Parser(Limits(), Allowance(Limits().metadata, "the metadata"))
    parser.feed(encode_header(replace(PLAIN, size=size)))
    assert [one.size for one in parser.members] == [size]


def test_only_what_ustar_lacks() -> None:
    """A member that fits ustar has one block and no PAX header, which is what every tar reads."""
    assert len(encode_header(PLAIN)) == 512
    assert len(encode_header(replace(PLAIN, mtime=1))) == 3 * 512


@pytest.mark.parametrize(("size", "zeros"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_padding(size: int, zeros: int) -> None:
    """Content fills whole blocks."""
    assert padding(size) == bytes(zeros)
