"""What `convert.parts` promises where what is kept lies, is damaged, or stands in another's way."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import zstandard

from syncd.convert.frame_store import FrameTable
from syncd.convert.parts import index, pull
from syncd.convert.scratch import kept_at
from syncd.errors import StoppedError
from syncd.oci.reference import Digest
from syncd.progress import Advance
from tests.archives import directory, file, tar
from tests.chunked import MARK, chunked, chunked_layer
from tests.convert.parts.pulling import Puller, pulled_whole
from tests.images import Layer, digest

NOISE = random.Random(7).randbytes(3 << 20).replace(MARK, b"..")


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def used_last(puller: Puller, layer: Layer) -> Path:
    """Make a kept layer the one that is asked first; return where it is kept."""
    kept = kept_at(puller.folder / "kept", Digest.parse(digest(layer.plain)))
    os.utime(kept, (1 << 33, 1 << 33))
    return kept


def small_files(name: str, first: int, last: int) -> Layer:
    """Return a layer of some of 400 files of 3000 bytes."""
    files = [file(f"usr/{nth:03}", NOISE[nth * 3000 :][:3000]) for nth in range(first, last)]
    return chunked_layer(tar(directory(name), *files))


def assert_by_parts(puller: Puller, *layers: Layer) -> None:
    """See that an image's layers are pulled by parts, and that its template is the right one."""
    assert puller.pull(*layers) == pulled_whole(puller.folder, *layers)
    assert puller.whole == []


def test_layers_that_meet_one_liar(puller: Puller) -> None:
    """Of layers that meet a liar side by side none is blamed, whichever forgets it."""
    plain = small_files("usr", 0, 400).plain
    made = chunked(plain)
    files = [one for one in made.entries if one.get("size") == 3000]
    for one, other in ((10, 12), (300, 320)):
        files[one]["digest"], files[other]["digest"] = files[other]["digest"], files[one]["digest"]
    liar = made.layer(plain)
    puller.pull(liar, small_files("etc", 0, 400))
    kept = used_last(puller, liar)
    longer = tar(small_files("opt", 200, 400).plain[:-1024], file("opt/big", bytes(8 << 20) + b"x"))
    layers = small_files("srv", 0, 200), chunked_layer(longer)
    assert_by_parts(puller, *layers)
    assert puller.doubts == ()
    assert not kept.exists()


def test_digest_of_zeros(puller: Puller, tmp_path: Path) -> None:
    """A table cannot have others forgotten by the digest that stands for zeros."""
    honest = chunked_layer(tar(file("holed", NOISE[:70_000] + bytes(300_000) + b"end")))
    plain = tar(file("sevens", b"7" * 300_000), file("noise", NOISE[:200_000]))
    made = chunked(plain)
    made.entries[0]["digest"] = "sha256:" + 64 * "0"
    puller.pull(honest)
    hostile = made.layer(plain)
    assert puller.pull(hostile) == pulled_whole(tmp_path, hostile)
    assert len(puller.doubts) == 1
    assert kept_at(tmp_path / "kept", Digest.parse(digest(honest.plain))).exists()


def test_digests_of_other_sizes(puller: Puller) -> None:
    """Who claims the digests of others for parts of another size keeps nobody from theirs."""
    puller.pull(small_files("one", 0, 200))
    plain = tar(*[file(f"{nth}", b"x") for nth in range(200)], file("junk", NOISE[-200_000:]))
    made = chunked(plain)
    for nth, entry in enumerate(one for one in made.entries if one.get("size") == 1):
        entry["digest"] = digest(NOISE[nth * 3000 :][:3000])
    liar = made.layer(plain)
    puller.pull(liar)
    used_last(puller, liar)
    again = small_files("two", 0, 200)
    assert_by_parts(puller, again)


def test_parts_that_do_not_lie_together(puller: Puller) -> None:
    """Parts that follow each other in rows alone are not taken for one stretch of bytes."""

    def part(begin: int, size: int) -> bytes:
        return NOISE[begin : begin + size - len(MARK)] + MARK

    first, second, third = part(0, 50_000), part(50_000, 40_000), part(90_000, 90_000)
    victim = file("lib", first + second + third), file("other", NOISE[-60_000:])
    puller.pull(chunked_layer(tar(directory("one"), *victim)))
    # The middle lies in the small contents; where the first frame ended, were it full, is its end.
    before = part(200_000, (2 << 20) - len(first) - len(second))
    apart = tar(file("1", before + first), file("2", second), file("3", third))
    puller.pull(chunked_layer(apart))
    used_last(puller, chunked_layer(apart))
    again = chunked_layer(tar(directory("two"), *victim))
    assert_by_parts(puller, again)


def test_lost_frames_of_the_newest(puller: Puller) -> None:
    """A layer whose template is gone does not hide an older one that has the same parts."""
    same = NOISE[: 1 << 20]
    puller.pull(chunked_layer(tar(file("large", same))))
    newest = chunked_layer(tar(file("large", b"before" + MARK + same)))
    (older,) = puller.earlier
    puller.earlier.clear()
    puller.pull(newest)
    puller.earlier[:] = [older]
    used_last(puller, newest)
    again = chunked_layer(tar(directory("moved"), file("moved/large", same)))
    assert_by_parts(puller, again)


def test_damage_of_the_newest(puller: Puller, tmp_path: Path) -> None:
    """A damaged layer is forgotten, and an older one that has the same parts serves."""
    puller.pull(small_files("one", 0, 200))
    newest = small_files("two", 0, 200)
    puller.pull(newest)
    kept = kept_at(tmp_path / "kept", Digest.parse(digest(newest.plain)))
    content = bytearray(kept.read_bytes())
    content[100] ^= 1
    kept.write_bytes(content)
    used_last(puller, newest)
    again = small_files("three", 0, 200)
    assert_by_parts(puller, again)
    assert not kept.exists()


def test_rows_of_many_parts(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of more parts than the index takes keeps no other layer out of it."""
    monkeypatch.setattr(index, "PARTS_MAX", 300)
    puller.pull(small_files("one", 0, 200))
    many = small_files("two", 300, 700)
    puller.pull(many)
    used_last(puller, many)
    again = small_files("three", 0, 200)
    assert_by_parts(puller, again)


def test_swapped_frame(puller: Puller, tmp_path: Path) -> None:
    """Who changes a storage while a layer is put together has nothing kept under a wrong name.

    A table that lies makes the bytes of one file stand for those of another; the frame with the
    one is swapped for a frame of the other, for the time of one conversion.
    """
    wanted = (b"PermitRootLogin no\n" * 20_000)[:200_000]
    other = NOISE[:15_000].hex().encode() + (b"PermitRootLogin yes\n" * 20_000)
    plain = tar(file("other", other[:200_000]), file("noise", NOISE[:150_000]))
    made = chunked(plain)
    made.entries[0]["digest"] = digest(wanted)
    puller.pull(made.layer(plain))
    ((template, table),) = puller.earlier
    intact = template.read_bytes()
    (first, *_) = _frames(table, intact, other[:200_000])
    swapped = zstandard.ZstdCompressor(level=19, write_checksum=True).compress(wanted)
    assert len(swapped) <= first[1]
    spoiled = bytearray(intact)
    spoiled[first[0] : sum(first)] = swapped.ljust(first[1], b"\0")
    template.write_bytes(spoiled)
    victim = chunked_layer(tar(file("conf", wanted), file("noise", NOISE[:150_000])))
    right = pulled_whole(tmp_path, victim)
    assert puller.pull(victim) == right
    template.write_bytes(intact)
    assert puller.pull(victim) == right


def _frames(table: Path, template: bytes, content: bytes) -> list[tuple[int, int]]:
    """Return where the frames of a content lie in a template: offset and size."""
    read = FrameTable.read(table, 1000)
    assert read is not None
    found, at = [], read.start
    for frame in read.frames:
        if zstandard.decompress(template[at : at + frame.size]) == content:
            found.append((at, frame.size))
        at += frame.size
    return found


def test_zeros_pay_for_no_frames(puller: Puller, tmp_path: Path) -> None:
    """Zeros, which cost an image nothing, do not allow it to have more decompressed."""
    begins = b"aaaaaa" + MARK, b"bbbbbb" + MARK
    large = [begins[nth] + NOISE[nth * 1_500_000 :][:1_500_000] for nth in range(2)]
    puller.pull(chunked_layer(tar(file("a", large[0]), file("b", large[1]))))
    turns = file("turns", (begins[0] + begins[1]) * 50)
    hostile = chunked_layer(
        tar(turns, file("zeros", bytes(40 << 20) + b"end"), file("c", large[0]))
    )
    assert puller.pull(hostile) == pulled_whole(tmp_path, hostile)
    assert puller.whole == [digest(hostile.stored)]


def test_no_memory_for_rows(
    puller: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that there is no memory for are not kept, and cost nobody a layer."""
    puller.pull(small_files("one", 0, 200))
    monkeypatch.setattr(pull, "_COPIES", 1 << 40)
    for name in ("two", "three"):
        layer = small_files(name, 0, 200)
        assert_by_parts(puller, layer)
    new = small_files("four", 200, 400)
    assert puller.pull(new) == pulled_whole(tmp_path, new)


def test_many_small_frames(puller: Puller) -> None:
    """A frame that is smaller than frames may be costs no more than it has."""
    files = [file(f"{nth}", NOISE[nth * 40_000 :][:70_000]) for nth in range(60)]
    puller.pull(chunked_layer(tar(*files)))
    moved = chunked_layer(tar(directory("moved"), *files))
    assert_by_parts(puller, moved)


def test_long_stretch(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that small ones make together is read from them piece by piece."""
    read: list[int] = []
    reading = index.PartIndex.read

    def noted(self: index.PartIndex, layer: int, offset: int, size: int) -> bytes:
        read.append(size)
        return reading(self, layer, offset, size)

    monkeypatch.setattr(index.PartIndex, "read", noted)
    small = [NOISE[at : at + 3000] + MARK for at in range(0, 900_000, 3000)]
    puller.pull(chunked_layer(tar(*[file(f"{nth:03}", one) for nth, one in enumerate(small)])))
    large = chunked_layer(tar(file("large", b"".join(small))))
    assert_by_parts(puller, large)
    assert max(read) <= index.KEPT_MAX
    assert len(read) < 10


def test_stop(puller: Puller) -> None:
    """A layer that is put together of what is here alone is stopped, too."""
    puller.pull(small_files("one", 0, 400))
    told: list[int] = []

    class Stopping:
        def begin(self, step: str, subject: str, total: int | None) -> Advance:
            def advance(amount: int) -> None:
                told.append(amount)
                if step == "parts" and len(told) == 3:
                    raise StoppedError("now")

            return advance

    puller.progress = Stopping()
    with pytest.raises(StoppedError):
        puller.pull(small_files("one", 0, 399))
    assert told[1:] == [0, 0]
