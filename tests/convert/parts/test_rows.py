"""What `convert.parts.rows` promises: for each part of a layer where its bytes are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from syncd.convert.frame_store import FrameSizes
from syncd.convert.parts.rows import Rows, decoded, encoded
from syncd.convert.parts.table import DIGEST, Table
from syncd.oci.reference import Digest
from syncd.tar import DIRECTORY, FILE, HARD_LINK, Member

SIZES = FrameSizes()
NAMES = [bytes([nth]) * 32 for nth in range(1, 9)]


def table(*files: Sequence[int]) -> Table:
    """Return the table of files, each of parts of these sizes; the nth part's digest is n's."""
    sizes = [size for parts in files for size in parts]
    ends = [sum(map(len, files[:nth])) for nth in range(1, len(files) + 1)]
    return Table(
        b"".join(bytes([nth]) * DIGEST for nth in range(len(sizes))),
        array("Q", sizes),
        array("Q", range(len(sizes))),
        array("Q", range(1, len(sizes) + 1)),
        array("Q", ends),
        array("Q", [sum(parts) for parts in files]),
        Digest.of(b""),
    )


def member(
    size: int, place: int | None = None, *, frames: Sequence[bytes] = (), kind: bytes = FILE
) -> Member:
    extents = () if place is None else ((0, size, place),)
    return Member(b"a", kind, 0o644, 0, 0, 0, size, extents=extents, frames=frames)


def rows(said: Table, *members: Member) -> Rows:
    found = decoded(encoded(said, members, SIZES))
    assert found is not None
    return found


def places(found: Rows) -> list[tuple[int, int]]:
    return list(zip(found.numbers, found.offsets, strict=True))


def test_small_contents() -> None:
    """Parts of a small file lie one behind the other where its content is."""
    found = rows(table([10, 20], [5]), member(30, 1000), member(5, 7))
    assert places(found) == [(0, 1000), (0, 1010), (0, 7)]
    assert [found.digest(nth)[0] for nth in range(3)] == [0, 1, 2]


def test_frames() -> None:
    """Parts of a large file lie in its frames, which are numbered through the layer."""
    half = SIZES.largest // 2
    large = member(3 * half + 7, frames=NAMES[:2])
    found = rows(table([half, half, half, 7], [100_000]), large, member(100_000, frames=NAMES[2:3]))
    assert places(found) == [(1, 0), (1, half), (2, 0), (2, half), (3, 0)]
    assert found.frames == NAMES[:3]
    assert found.frames_of(3, SIZES.largest) == slice(1, 2)


def test_part_in_two_frames() -> None:
    """A part that goes beyond its frame lies in the next one, too."""
    found = rows(table([10, SIZES.largest]), member(SIZES.largest + 10, frames=NAMES[:2]))
    assert places(found) == [(1, 0), (1, 10)]
    assert found.frames_of(0, SIZES.largest) == slice(0, 1)
    assert found.frames_of(1, SIZES.largest) == slice(0, 2)


def test_no_content() -> None:
    """Members without a content of their own have no parts."""
    link = member(0, kind=HARD_LINK)
    found = rows(table([5]), member(0, kind=DIRECTORY), link, member(0), member(5, 7))
    assert places(found) == [(0, 7)]


def test_another_file() -> None:
    """From the first file on that the table has otherwise, nothing is known."""
    said = table([5], [6], [7])
    members = member(5, 0), member(8, 5), member(7, 13)
    assert places(rows(said, *members)) == [(0, 0)]
    assert places(rows(table([5]), *members)) == [(0, 0)]


def test_sparse_files() -> None:
    """A file with a hole, which a table expands, ends what is known, if it is but a hole, too."""
    said = table([5], [6], [6])
    holed = Member(b"a", FILE, 0o644, 0, 0, 0, 6, extents=((4, 2, 100),))
    assert places(rows(said, member(5, 0), holed, member(6, 5))) == [(0, 0)]
    assert places(rows(said, member(5, 0), member(6), member(6, 5))) == [(0, 0)]


def test_damage() -> None:
    """Rows that were damaged are none."""
    content = encoded(table([5]), [member(5, 0)], SIZES)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        assert decoded(bytes(damaged)) is None
    assert decoded(content[:5]) is None
