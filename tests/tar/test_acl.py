"""What `tar.acl` promises: each form of an ACL becomes one text, or is refused with the reason."""

from __future__ import annotations

import base64
import io
import os
import struct
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.errors import ImageError
from syncd.tar import acl
from syncd.tar.member import ACCESS_ACL, DEFAULT_ACL, Member, encode_header
from tests.archives import directory, extended, file, hardlink, member, symlink, tar
from tests.templates import members

NONE = 0xFFFFFFFF
TEXT = b"user::rwx\nuser:7:r--\nuser:1000:rw-\ngroup::r-x\ngroup:4:---\nmask::rw-\nother::--x\n"
ENTRIES = [(1, 7, NONE), (2, 4, 7), (2, 6, 1000), (4, 5, NONE), (8, 0, 4), (16, 6, NONE),
           (32, 1, NONE)]  # fmt: skip
BINARY = "SCHILY.xattr.system.posix_acl_access"
LIBARCHIVE = "LIBARCHIVE.xattr.system.posix_acl_access"


def packed(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """Return an ACL as the kernel's attribute has it: tags, permissions and ids."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def read(records: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Member:
    """Return the member that a layer says this of, with mode 0675."""
    (found,) = members(tar(extended(records), member("a", kind, mode=0o675, target="b" * 9)))
    return found


@pytest.mark.parametrize(
    "records",
    [
        {"SCHILY.acl.access": TEXT},
        {"SCHILY.acl.access": b"\n".join(TEXT.splitlines()[::-1])},
        {"SCHILY.acl.access": TEXT.strip().replace(b"\n", b",")},
        {"SCHILY.acl.access": b"u::rwx,u:lisa:rw:1000,u:7:r,g::r-x,g:adm::4,m:rw,o::x"},
        {"SCHILY.acl.access": b"# file: a\n user : : rwx # all\n" + TEXT[10:]},
        {BINARY: packed(*ENTRIES)},
        {BINARY: packed(*ENTRIES[::-1])},
        {LIBARCHIVE: base64.b64encode(packed(*ENTRIES)).rstrip(b"=")},
        {BINARY: packed(*ENTRIES), "SCHILY.acl.access": b"user:lisa:rwx"},
    ],
)
def test_forms(records: dict[str, bytes]) -> None:
    """Whatever form an ACL has, its text is the same, its ids are numbers, and the mode stays."""
    found = read(records)
    assert (found.access_acl, found.default_acl, found.mode) == (TEXT, b"", 0o675)
    assert sorted(acl.numeric_ids(found.access_acl)) == [4, 7, 1000]
    assert acl.fault(found.access_acl) == ""


def test_kernel_agrees(tmp_path: Path) -> None:
    """The kernel takes this test's binary form, and gives it back."""
    path = tmp_path / "a"
    path.touch()
    try:
        os.setxattr(path, "system.posix_acl_access", packed(*ENTRIES))
    except OSError as exc:
        pytest.skip(f"this file system has no ACLs: {exc}")
    assert os.getxattr(path, "system.posix_acl_access") == packed(*ENTRIES)
    assert path.stat().st_mode & 0o777 == 0o761


def test_default() -> None:
    """A directory has two ACLs, other members one, and links none."""
    records = {"SCHILY.acl.access": TEXT, "SCHILY.xattr.system.posix_acl_default": packed(*ENTRIES)}
    folder = read(records, tarfile.DIRTYPE)
    assert (folder.access_acl, folder.default_acl) == (TEXT, TEXT)
    for kind in (tarfile.REGTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        assert (read(records, kind).access_acl, read(records, kind).default_acl) == (TEXT, b"")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        assert (read(records, kind).access_acl, read(records, kind).default_acl) == (b"", b"")


def test_none() -> None:
    """No entries mean no ACL, and an empty record withdraws that of a global header."""
    everywhere = extended({"SCHILY.acl.access": TEXT}, b"g")
    plain = tar(everywhere, file("a"), extended({"SCHILY.acl.access": b""}), file("b"))
    assert [found.access_acl for found in members(plain)] == [TEXT, b""]
    for records in ({"SCHILY.acl.access": b"# nothing\n"}, {BINARY: packed()}):
        assert (read(records).access_acl, read(records).mode) == (b"", 0o675)


@pytest.mark.parametrize(
    ("text", "group", "why"),
    [
        (b"u::rwx,u:lisa:rwx,g::r-x,m::rwx,o::r-x", 0o5, "name 'lisa'"),
        (b"u::rwx,g:\xff:rwx,g::---,m::rwx,o::r-x", 0o0, "name"),
        (b"u::rwx,u:lisa:rwx,g::rwx,m::r-x,o::r-x", 0o5, "name 'lisa'"),
        (b"u::rwx,u:1:rwx,g::r--,o::r-x", 0o4, "mask"),
        (b"u::rwx,u:1:rwx,u:1:r--,g::r--,m::rwx,o::r-x", 0o4, "two entries"),
        (b"u::rwx,u:1:rwx,g::-w-,m::rwx", 0o2, "one entry each"),
        (b"g::--x,o::rwx", 0o1, "one entry each"),
        (b"u::rwx,g::r-x,g::r--,o::r-x", 0o4, "one entry each"),
    ],
)
def test_not_lasting(text: bytes, group: int, why: str) -> None:
    """Where an ACL cannot be kept, the mode's group bits are the group's own, never the mask."""
    found = read({"SCHILY.acl.access": text})
    assert why in acl.fault(found.access_acl)
    assert found.mode == 0o605 | group << 3


@pytest.mark.parametrize(
    ("record", "value", "why"),
    [
        ("SCHILY.acl.access", b"rwx", "entry b'rwx'"),
        ("SCHILY.acl.access", b"user::rwxr", "entry"),
        ("SCHILY.acl.access", b"user::7", "entry"),
        ("SCHILY.acl.access", b"owner@:rwx::allow", "entry"),
        ("SCHILY.acl.access", b"mask:5:rwx", "entry"),
        ("SCHILY.acl.access", b"default:user::rwx", "entry"),
        ("SCHILY.acl.access", b"user::rwx,other::rwx", "no entry for the group"),
        ("SCHILY.acl.access", TEXT + b"user:4294967295:rwx", "the id 4294967295"),
        ("SCHILY.acl.access", TEXT + b"user:" + b"9" * 5000 + b":rwx", "the id 9"),
        ("SCHILY.acl.access", b"# " + bytes(300_000), "300002 bytes"),
        (BINARY, b"\2\0\0", "3 bytes"),
        (BINARY, packed(*ENTRIES)[:-1], "59 bytes"),
        (BINARY, packed(*ENTRIES, version=1), "version 1"),
        (BINARY, packed((3, 7, 0)), "tag 3"),
        (BINARY, packed((4, 8, 0)), "permissions 8"),
        (BINARY, packed(*ENTRIES, (8, 7, NONE)), "the id 4294967295"),
        (BINARY, packed(*ENTRIES[:3]), "no entry for the group"),
        (BINARY, packed(*ENTRIES) + bytes(70_000), "70060 bytes"),
        (LIBARCHIVE, b"a!b", "base64"),
    ],
)
def test_malformed(record: str, value: bytes, why: str) -> None:
    """What is no ACL is refused with the record, the member and the reason."""
    with pytest.raises(ImageError, match=rf"{record} of 'a' is not an ACL: .*{why}"):
        read({record: value})


def test_written() -> None:
    """ACLs are written as the records that GNU tar restores, and read back as they were."""
    sent = members(tar(directory("a", records={"SCHILY.acl.default": TEXT.decode()}), file("b")))
    plain = b"".join(map(encode_header, sent))
    with tarfile.open(fileobj=io.BytesIO(plain + bytes(1024))) as archive:
        assert archive.getmember("a").pax_headers == {"SCHILY.acl.default": TEXT.decode()}
        assert archive.getmember("b").pax_headers == {}
    assert members(plain + bytes(1024)) == sent
    both = read({"SCHILY.acl.access": TEXT, "SCHILY.acl.default": b"g::r"}, tarfile.DIRTYPE)
    assert encode_header(both).index(ACCESS_ACL) < encode_header(both).index(DEFAULT_ACL)


def test_links_of_other_kinds() -> None:
    """A record of an ACL before a link means nothing, even a malformed one."""
    record = extended({"SCHILY.acl.access": b"?"})
    found = members(tar(file("a"), record, symlink("b", "a"), record, hardlink("c", "a")))
    assert [one.access_acl for one in found] == [b"", b"", b""]


def test_many_members() -> None:
    """A large ACL of a global header is read once, not for each of the members."""
    text = b"".join(b"user:%d:rwx," % nth for nth in range(15_000)) + b"g::r"
    started = time.monotonic()
    plain = tar(extended({"SCHILY.acl.access": text}, b"g"), *(file(str(n)) for n in range(400)))
    assert len(members(plain)) == 400
    assert time.monotonic() - started < 5


_WORDS = [b"user", b"u", b"g", b"m", b"other", b"1", b"65536", b"4294967295", b"lisa", b"rwx",
          b"r-", b":", b"::", b",", b"\n", b"#", b" ", b"\xff", b"\r", b"\0"]  # fmt: skip
_LINES = st.tuples(
    st.sampled_from([b"u", b"g", b"m", b"o"]),
    st.sampled_from([b"", b"5", b"joe", b"\xff", b"a\rb"]),
    st.sampled_from([b"rwx", b"r", b"--x", b""]),
).map(b":".join)
_ENTRIES = st.tuples(
    st.sampled_from([1, 2, 4, 8, 16, 32, 3]), st.integers(0, 8), st.sampled_from([0, 70_000, NONE])
)


@given(
    st.one_of(
        st.tuples(st.just(ACCESS_ACL), st.lists(st.sampled_from(_WORDS)).map(b"".join)),
        st.tuples(st.just(DEFAULT_ACL), st.lists(_LINES).map(b",".join)),
        st.tuples(st.just(ACCESS_ACL), st.lists(_LINES).map(b",".join)),
        st.tuples(st.just(BINARY.encode()), st.lists(_ENTRIES).map(lambda some: packed(*some))),
        st.tuples(st.just(LIBARCHIVE.encode()), st.binary()),
    )
)
def test_any_bytes(record: tuple[bytes, bytes]) -> None:
    """Whatever a record holds, it is refused, or its text is read as the same text again."""
    key = DEFAULT_ACL if record[0] == DEFAULT_ACL else ACCESS_ACL
    try:
        text = acl.read(dict([record]), key, b"name")
    except ImageError:
        return
    assert acl.read({key: text}, key, b"name") == text
    if text and key == ACCESS_ACL:
        assert not acl.group_permissions(text) & ~acl.class_permissions(text)
    assert all(0 <= number < NONE for number in acl.numeric_ids(text))
