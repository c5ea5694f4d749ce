"""What `tar` promises: every tar that images contain is read, and no damaged one is."""

from __future__ import annotations

import tarfile
import time

import pytest

from syncd.errors import ImageError, LimitError
from syncd.limits import Limits
from syncd.tar.member import DIRECTORY, FILE, HARD_LINK, Member
from tests.archives import (
    END,
    MTIME,
    block,
    directory,
    extended,
    file,
    hardlink,
    member,
    padded,
    raw_extended,
    symlink,
    tar,
)
from tests.templates import members

LONG = b"d" * 120 + b"/" + b"f" * 200


def content(archive: bytes, found: Member) -> bytes:
    """Return a member's content, zeros between its extents."""
    plain = bytearray(found.size)
    for offset, length, place in found.extents:
        plain[offset : offset + length] = archive[place : place + length]
    return bytes(plain)


@pytest.mark.parametrize("step", [1, 511, 512, 513, 4096, 1 << 20])
def test_any_chunks(step: int) -> None:
    """However an archive is cut into chunks, its members are the same."""
    archive = tar(
        file("a", b"x" * 1000),
        directory("d", xattrs={"user.note": b"n" * 600}),
        file(LONG, b"y" * 512, form=tarfile.GNU_FORMAT),
        hardlink("link", "a"),
        file("last", b"z"),
    )
    found = members(archive, step=step)
    assert [one.name for one in found] == [b"a", b"d/", LONG, b"link", b"last"]
    assert [content(archive, one) for one in found] == [
        b"x" * 1000, b"", b"y" * 512, b"", b"z",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("archive", "field", "value"),
    [
        (file("a", uid=2097151), "uid", 2097151),
        (file("a", uid=2097152, gid=4294967294), "gid", 4294967294),
        (file("a", uid=1 << 40, form=tarfile.GNU_FORMAT), "uid", 1 << 40),
        (block(b"a", uid=b"\x80" + b"\0" * 2 + b"\xff" * 5), "uid", (1 << 40) - 1),
        (block(b"a", mtime=b"\xff" * 11 + b"\xfe"), "mtime", -2 * 10**9),
        (block(b"a", mtime=b"\x80" + b"\0" * 6 + b"\x10" + b"\0" * 4), "mtime", (16 << 32) * 10**9),
        (block(b"a", uid=b"  1750 \0"), "uid", 0o1750),
        (block(b"a", uid=b"00001750"), "uid", 0o1750),
        (block(b"a", uid=b"\0" * 8), "uid", 0),
        (block(b"a", uid=b"        "), "uid", 0),
        (block(b"a", mode=b"0107755\0"), "mode", 0o7755),
        (file("a", mode=0o6755), "mode", 0o6755),
        (extended({"uid": b"5"}) + block(b"a", uid=b"0000007\0"), "uid", 5),
        (extended({"uid": b""}) + block(b"a", uid=b"0000007\0"), "uid", 7),
    ],
)
def test_numbers(archive: bytes, field: str, value: int) -> None:
    """Numbers are read in octal, in base 256 and from PAX records, which win."""
    (found,) = members(tar(archive))
    assert getattr(found, field) == value


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1.5", 1_500_000_000),
        ("1600000000.123456789", 1_600_000_000_123_456_789),
        ("1.0000000019", 1_000_000_001),
        ("-1", -1_000_000_000),
        ("-1.5", -1_500_000_000),
        ("-0.000000001", -1),
        ("-1.0000000001", -1_000_000_001),
        ("7.", 7_000_000_000),
        ("", MTIME),
    ],
)
def test_times(text: str, nanoseconds: int) -> None:
    """A PAX time keeps its nanoseconds, before 1970 too; an empty one leaves the header's."""
    (found,) = members(tar(file("a", records={"mtime": text})))
    assert found.mtime == nanoseconds


@pytest.mark.parametrize("text", ["x", "1e9", "1,5", "--1", ".", "1_0", "9" * 19])
def test_bad_times(text: str) -> None:
    """A PAX time that is none is refused."""
    with pytest.raises(ImageError, match="time"):
        members(tar(file("a", records={"mtime": text})))


@pytest.mark.parametrize(
    ("archive", "name"),
    [
        (file(b"caf\xe9"), b"caf\xe9"),
        (file(b"\xff" * 150), b"\xff" * 150),
        (file(LONG), LONG),
        (file(LONG, form=tarfile.GNU_FORMAT), LONG),
        (file("d" * 60 + "/" + "f" * 90, form=tarfile.USTAR_FORMAT), b"d" * 60 + b"/" + b"f" * 90),
        (file("a" * 100), b"a" * 100),
        (block(b"a" * 100, magic=b"ustar  \0", rest=b"\0" * 80 + b"prefix"), b"a" * 100),
        (
            block(
                b"a",
                rest=bytes(80) + b"p" * 131 + b"00000000001 00000000002 " + bytes(8) + b"tar\0",
            ),
            b"p" * 131 + b"/a",
        ),
        (extended({"path": b"pax"}) + block(b"ustar", rest=bytes(80) + b"prefix"), b"pax"),
        (extended({"path": b""}) + block(b"ustar"), b"ustar"),
        (file("/absolute"), b"/absolute"),
        (file("./a"), b"./a"),
        (file("a\nb"), b"a\nb"),
    ],
)
def test_names(archive: bytes, name: bytes) -> None:
    """A name is its bytes, from whichever of the five places an archive keeps it in."""
    assert [one.name for one in members(tar(archive))] == [name]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_link_targets(form: int) -> None:
    """A long link target is read whole, in PAX records and in GNU's own members."""
    archive = member("l", tarfile.SYMTYPE, target=LONG, form=form)  # type: ignore[arg-type] # one of two
    assert [one.target for one in members(tar(archive))] == [LONG]


@pytest.mark.parametrize(
    ("archive", "kind", "size"),
    [
        (block(b"d/", b"\0", magic=b""), DIRECTORY, 0),
        (block(b"f", b"\0", magic=b"", size=3) + padded(b"abc"), FILE, 3),
        (block(b"f", b"7", size=3) + padded(b"abc"), FILE, 3),
        (block(b"f/", b"0", size=3) + padded(b"abc"), FILE, 3),
        (block(b"d", b"5", size=3), DIRECTORY, 0),
        (block(b"l", b"1", size=3, target=b"f"), HARD_LINK, 0),
    ],
)
def test_kinds(archive: bytes, kind: bytes, size: int) -> None:
    """Old types mean what they always did, and only files have content."""
    found, last = members(tar(archive, file("last")))
    assert (found.kind, found.size, last.name) == (kind, size, b"last")


def test_devices() -> None:
    """Device numbers are read of devices only."""
    numbers = b"".join((b"root".ljust(32, b"\0"), bytes(32), b"0000010\0", b"0000003\0"))
    archive = tar(block(b"dev", b"3", rest=numbers), block(b"file", b"0", rest=numbers))
    assert [one.device for one in members(archive)] == [(8, 3), (0, 0)]


@pytest.mark.parametrize("field", [b"\x80" + b"\xff" * 7, b"\xff" * 8, b"77777777"])
def test_impossible_devices(field: bytes) -> None:
    """A device number that no kernel has is refused."""
    with pytest.raises(ImageError, match="device"):
        members(tar(block(b"dev", b"4", rest=bytes(64) + field + b"0000000\0")))


def test_xattrs() -> None:
    """Capabilities and user attributes are kept, in one order; no others are."""
    kept = {"user.b": b"\xff\0\n=", "user.a": b"", "security.capability": b"\1\0\0\2"}
    lost = {"security.selinux": b"x", "trusted.overlay.opaque": b"y", "user.": b"z"}
    (found,) = members(tar(file("a", xattrs=kept | lost)))
    assert list(found.xattrs.items()) == sorted((k.encode(), v) for k, v in kept.items())


def test_size_override() -> None:
    """A size in a PAX record counts, not the header's."""
    archive = tar(extended({"size": b"600"}) + block(b"a") + padded(b"x" * 600), file("b"))
    found, after = members(archive)
    assert (content(archive, found), after.name) == (b"x" * 600, b"b")


def test_global_headers() -> None:
    """A global header holds for all members after it; a member's own header wins."""
    found = members(
        tar(
            file("before"),
            extended({"uid": b"7", "mtime": b"1"}, b"g"),
            file("own", records={"uid": "8"}),
            file("shared"),
            extended({"uid": b"9"}, b"g"),
            file("later"),
        )
    )
    assert [one.uid for one in found] == [0, 8, 7, 9]
    assert [one.mtime for one in found] == [MTIME, 10**9, 10**9, 10**9]


def test_signed_checksum() -> None:
    """A checksum over signed characters, as historic tars made it, is taken."""
    assert [one.name for one in members(tar(block(b"caf\xe9", signed=True)))] == [b"caf\xe9"]


DATA = b"A" * 1000 + b"B" * 24
SPARSE = bytes(4096) + b"A" * 1000 + bytes(8192 - 5096) + b"B" * 24 + bytes(100)


def old_gnu(*entries: bytes, extensions: tuple[bytes, ...] = (), size: int = len(SPARSE)) -> bytes:
    """Return a file of GNU's sparse type, its map in the header and in extension blocks."""
    rest = b"".join(entries).ljust(96, b"\0") + bytes([bool(extensions)]) + b"%011o\0" % size
    head = block(b"s", b"S", magic=b"ustar  \0", size=len(DATA), rest=bytes(121) + rest)
    return head + b"".join(extensions) + padded(DATA)


def entry(offset: int, length: int) -> bytes:
    """Return one entry of GNU's own sparse map."""
    return b"%011o\0%011o\0" % (offset, length)


def mapped(records: list[tuple[str, bytes]], stored: bytes = DATA) -> bytes:
    """Return a sparse file whose map is in PAX records."""
    return extended(records) + block(b"s", size=len(stored)) + padded(stored)


REAL = b"%d" % len(SPARSE)
SPARSE_FORMS = {
    "GNU's own": old_gnu(entry(4096, 1000), entry(8192, 24), entry(len(SPARSE), 0)),
    "GNU's own, extended": old_gnu(
        entry(4096, 1000),
        extensions=(
            entry(8192, 20).ljust(504, b"\0") + b"\1" + bytes(7),
            entry(8212, 4).ljust(512, b"\0"),
        ),
    ),
    "PAX 0.0": mapped(
        [
            ("GNU.sparse.size", REAL),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"4096"),
            ("GNU.sparse.numbytes", b"1000"),
            ("GNU.sparse.offset", b"8192"),
            ("GNU.sparse.numbytes", b"24"),
        ]
    ),
    "PAX 0.1": mapped(
        [
            ("GNU.sparse.size", REAL),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"4096,1000,8192,24"),
            ("GNU.sparse.name", b"s"),
        ]
    ),
    "PAX 1.0": mapped(
        [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", REAL),
        ],
        padded(b"2\n4096\n1000\n8192\n24\n") + DATA,
    ),
}


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_smembers(form: str) -> None:
    """A sparse file has its content and its zeros, in each of GNU tar's four forms."""
    archive = tar(SPARSE_FORMS[form], file("after"))
    found, after = members(archive)
    assert (found.name, found.kind, after.name) == (b"s", FILE, b"after")
    assert content(archive, found) == SPARSE


@pytest.mark.parametrize(
    "archive",
    [
        old_gnu(entry(4096, 1000), entry(4097, 24)),
        old_gnu(entry(8192, 1000), entry(4096, 24)),
        old_gnu(entry(4096, 1000)),
        old_gnu(entry(4096, 1000), entry(8192, 24), size=8200),
        old_gnu(b"\xff" * 12 + b"%011o\0" % 1024),
        block(b"s", b"S", magic=b"ustar  \0", rest=bytes(218) + b"\xff" * 12),
        mapped([("GNU.sparse.map", b"1,2,3")]),
        mapped([("GNU.sparse.map", b"0,-1")]),
        mapped([("GNU.sparse.map", b"0,x")]),
        mapped([("GNU.sparse.size", b"99")]),
        mapped([("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")], padded(b"9\n1\n")),
        mapped([("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")], b"1\n0\n9\n"),
        mapped([("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")], padded(b"x\n")),
        mapped([("GNU.sparse.size", b"9" * 20), ("GNU.sparse.map", b"0,1024")]),
    ],
)
def test_impossible_smembers(archive: bytes) -> None:
    """A sparse map that overlaps, leaves the file or does not fit what is stored is refused."""
    with pytest.raises(ImageError):
        members(tar(archive))


@pytest.mark.parametrize(
    ("archive", "names"),
    [
        (b"", []),
        (END, []),
        (END[:512], []),
        (file("a", b"x"), [b"a"]),
        (file("a", b"x") + END[:512], [b"a"]),
        (tar(file("a"), end=bytes(20 * 512)), [b"a"]),
        (tar(file("a")) + b"anything: every tar passes over it" * 99, [b"a"]),
        (tar(extended({"uid": b"1"}, b"g")), []),
    ],
)
def test_ends(archive: bytes, names: list[bytes]) -> None:
    """An archive may lack its end marker, or go on behind it."""
    assert [one.name for one in members(archive)] == names


@pytest.mark.parametrize(
    "archive",
    [
        file("a", b"x" * 600)[:-1],
        file("a", b"x" * 600)[:512],
        file("a", b"x" * 600)[:1024],
        file("a")[:511],
        file("a")[:1],
        file("a") + END[:100],
        file(LONG)[:512],
        file(LONG)[:1024],
        file(LONG, form=tarfile.GNU_FORMAT)[:1024],
        old_gnu(entry(0, 1), extensions=(bytes(504) + b"\1" + bytes(7),))[:1024],
        SPARSE_FORMS["PAX 1.0"][:1600],
        SPARSE_FORMS["PAX 1.0"][:-1],
    ],
)
def test_cut(archive: bytes) -> None:
    """An archive cut within a header, an extended header, a map or content is refused."""
    with pytest.raises(ImageError, match="cut"):
        members(archive)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"x" + file("a")[1:] + END, "checksum"),
        (b"no tar at all".ljust(1024, b"."), "number"),
        (file("a") + END[:512] + file("b") + END, "lone zero block"),
        (extended({"uid": b"1"}) + END, "has no member"),
        (tar(raw_extended(b"99 uid=1\n")), "malformed"),
        (tar(raw_extended(b"7 uid=1\n")), "malformed"),
        (tar(raw_extended(b"uid=1\n")), "malformed"),
        (tar(raw_extended(b"0 uid=1\n")), "malformed"),
        (tar(raw_extended(b"-9 uid=1\n")), "malformed"),
        (tar(raw_extended(b"7 uid1\n")), "malformed"),
        (tar(raw_extended(b"5 =1\n")), "malformed"),
        (tar(raw_extended(b"9 uid=1\n\0\0")), "malformed"),
        (tar(file("a", records={"uid": "-1"})), "decimal"),
        (tar(file("a", records={"size": "1e3"})), "decimal"),
        (tar(block(b"a", size=b"\xff" * 12)), "negative"),
        (tar(block(b"a", uid=b"-000001\0")), "negative"),
        (tar(block(b"a", uid=b"0o00001\0")), "bad number"),
        (tar(block(b"a", uid=b"00_0001\0")), "bad number"),
        (tar(block(b"a", size=b"00000000008\0")), "bad number"),
        (tar(block(b"a", size=b"\x80" + b"\x7f" * 11)), "impossible"),
        (tar(block(b"a", mtime=b"\x80" + b"\x7f" * 11)), "impossible"),
        (tar(block(b"a", b"M")), "unknown tar type"),
        (tar(block(b"", b"0")), "unusable name"),
        (tar(extended({"path": b"a\0b"}) + block(b"x")), "unusable name"),
        (tar(extended({"linkpath": b"a\0b"}) + block(b"x", b"2")), "unusable name"),
        (tar(hardlink("a", "")), "no target"),
        (tar(symlink("a", "")), "no target"),
    ],
)
def test_refused(archive: bytes, message: str) -> None:
    """What is damaged, unknown or impossible is refused with its reason."""
    with pytest.raises(ImageError, match=message):
        members(archive)


@pytest.mark.parametrize(
    ("archive", "limits", "bound"),
    [
        (tar(file("a"), file("b"), file("c")), Limits(entries=2), "entries"),
        (tar(file("a" * 101)), Limits(path=100), "path"),
        (tar(*(file("a" * 50) for _ in range(5))), Limits(metadata=200), "metadata"),
        (tar(symlink("a", "b" * 300)), Limits(metadata=200), "metadata"),
        (tar(file("a", xattrs={"user.x": bytes(300)})), Limits(metadata=200), "metadata"),
        (
            tar(directory("a", records={"SCHILY.acl.default": "user:1:rwx," * 30})),
            Limits(metadata=200),
            "metadata",
        ),
        (
            tar(*(extended({f"SCHILY.xattr.user.{i}": b"x"}, b"g") for i in range(5))),
            Limits(metadata=200),
            "metadata",
        ),
        (
            tar(
                mapped(
                    [
                        ("GNU.sparse.size", b"99"),
                        ("GNU.sparse.map", b",".join(b"%d,1" % i for i in range(0, 20, 2))),
                    ],
                    b"x" * 10,
                )
            ),
            Limits(metadata=200),
            "metadata",
        ),
        (tar(symlink("a", "b" * 101)), Limits(path=100), "path"),
        (tar(file("a", xattrs={"user.x": b"x" * 600})), Limits(header=600), "header"),
        (tar(file("a" * 700, form=tarfile.GNU_FORMAT)), Limits(header=600), "header"),
        (tar(block(b"x", b"x", size=b"\x80" + b"\x7f" * 11)), Limits(), "header"),
        (
            tar(
                mapped(
                    [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9999")],
                    padded(b"999\n" + b"1\n" * 999),
                )
            ),
            Limits(header=1024),
            "header",
        ),
        (
            tar(old_gnu(extensions=(entry(0, 0) * 21 + b"\1" + bytes(7),) * 9)),
            Limits(header=1024),
            "header",
        ),
    ],
)
def test_limits(archive: bytes, limits: Limits, bound: str) -> None:
    """Beyond a bound stands an error that names it."""
    with pytest.raises(LimitError, match=f"limits.{bound}"):
        members(archive, limits)


def test_many_records() -> None:
    """A PAX header full of tiny records takes time in proportion to its size, not its square."""
    start = time.process_time()
    members(tar(raw_extended(b"6 a=b\n" * 170_000), file("a")))
    assert time.process_time() - start < 3
