"""What `convert.parts.pull` promises: fewer bytes, and the same template in any case."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.convert.parts import index, pull
from syncd.convert.pipeline import LAYERS_AT_A_TIME
from syncd.convert.scratch import kept_at
from syncd.errors import (
    ImageError,
    NoRangesError,
    NotFoundError,
    RegistryUnavailableError,
    SyncdError,
)
from syncd.limits import Limits
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.range_reader import Range
from syncd.oci.reference import Digest
from syncd.oci.source import OpenedImage
from tests.archives import directory, file, tar
from tests.chunked import MARK, PREFIX, Chunked, chunked, chunked_layer
from tests.convert.parts.pulling import Lying, Puller, pulled_whole
from tests.images import Layer, digest, layer_of

NOISE = random.Random(7).randbytes(3 << 20)


def tree(change: bytes = b"", *, nth: int = 150) -> bytes:
    """Return a tar of small files, a large one, and one with a hole; `change` is in one of them."""
    small = [
        file(f"usr/{one:03}", NOISE[one * 3000 : one * 3000 + 3000] + change * (one == nth))
        for one in range(200)
    ]
    large = file("usr/large", NOISE[: 5 << 19] + change)
    holed = file("usr/holed", NOISE[:70_000] + bytes(300_000) + b"end")
    return tar(directory("usr"), *small[:100], large, holed, *small[100:])


FIRST, SECOND = chunked_layer(tree()), chunked_layer(tree(b"changed"))
AS_WHOLE = layer_of(SECOND.plain)


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def test_rebuilt_layer(puller: Puller, tmp_path: Path) -> None:
    """Of a layer built again only what changed is fetched, and the template is the same."""
    puller.pull(FIRST)
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert puller.whole == []
    assert puller.fetched < len(SECOND.stored) / 20
    assert puller.doubts == ()


def test_again(puller: Puller, tmp_path: Path) -> None:
    """A layer that was pulled by parts serves the next one as well as one that was pulled whole."""
    puller.pull(FIRST)
    puller.pull(SECOND)
    third = chunked_layer(tree(b"again", nth=20))
    assert puller.pull(third) == pulled_whole(tmp_path, third)
    assert puller.whole == []
    assert puller.fetched < len(third.stored) / 20


def test_nothing_here(puller: Puller) -> None:
    """Where nothing is here, a layer is pulled whole, and its table is read as it goes by."""
    puller.pull(FIRST)
    assert puller.whole == [digest(FIRST.stored)]
    assert puller.asked == []


def test_everything_here(puller: Puller, tmp_path: Path) -> None:
    """A layer all of whose parts are here is put together without a further range."""
    puller.pull(FIRST)
    moved = chunked_layer(tar(directory("srv"), tree()[512:]))
    assert puller.pull(moved) == pulled_whole(tmp_path, moved)
    assert puller.whole == []
    assert len(puller.asked) == 2


def test_lost_templates(puller: Puller, tmp_path: Path) -> None:
    """Small files are found in kept layers when the earlier templates are gone."""
    puller.pull(FIRST)
    puller.earlier.clear()
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)


def test_lost_layers(puller: Puller, tmp_path: Path) -> None:
    """Without kept layers nothing is known to be here, and the layer is pulled whole."""
    puller.pull(FIRST)
    for kept in (tmp_path / "kept").iterdir():
        kept.unlink()
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert puller.whole == [digest(SECOND.stored)]


def test_layers_used_last(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many kept layers those are opened that were used last, and no more than may be."""
    monkeypatch.setattr(index, "LAYERS_MAX", 2)
    later = [chunked_layer(tree(bytes([nth]))) for nth in range(2)]
    other = chunked_layer(tar(file("usr/other", random.Random(8).randbytes(1 << 20))))
    puller.pull(FIRST, other)
    for layer in later:
        puller.pull(layer)
        assert puller.whole == []
    puller.pull(
        chunked_layer(tar(directory("srv"), file("usr/other", other.plain[512 : 512 + (1 << 20)])))
    )
    assert len(puller.whole) == 1


@pytest.mark.parametrize("place", [100, 0.5, -100])
def test_damaged_layers(puller: Puller, tmp_path: Path, place: float) -> None:
    """A kept layer that was damaged serves nobody, wherever the damage is."""
    puller.pull(FIRST)
    (kept,) = (tmp_path / "kept").iterdir()
    content = bytearray(kept.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    kept.write_bytes(content)
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert puller.doubts == ()


def test_damaged_template(puller: Puller, tmp_path: Path) -> None:
    """Frames of a template that was damaged are noticed, and the layer is pulled whole."""
    puller.pull(FIRST)
    template, _ = puller.earlier[0]
    content = bytearray(template.read_bytes())
    for place in range(0, len(content), 10_000):
        content[place] ^= 1
    template.write_bytes(content)
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert puller.doubts == ()


def spoiled(change: Callable[[Chunked], object]) -> Layer:
    """Return the second layer with something changed before its blob was put together."""
    made = chunked(SECOND.plain)
    change(made)
    return made.layer(SECOND.plain)


def entry(made: Chunked, **fields: object) -> None:
    next(one for one in made.entries if one.get("chunkDigest")).update(fields)


def swap_files(made: Chunked) -> None:
    """Let the table name the parts of two files of one size in the wrong order."""
    first, second = [one for one in made.entries if one.get("size") == 3000][:2]
    first["digest"], second["digest"] = second["digest"], first["digest"]


LIES: dict[str, Callable[[Chunked], object]] = {
    "checksum": lambda made: made.annotations.update({"manifest-checksum": digest(b"")}),
    "no checksum": lambda made: made.annotations.update({"manifest-checksum": "sha256:1"}),
    "words": lambda made: made.annotations.update({"manifest-position": "a:b:c:1"}),
    "too few": lambda made: made.annotations.update({"tarsplit-position": "1:2"}),
    "beyond": lambda made: made.annotations.update({"tarsplit-position": f"{1 << 40}:20:30"}),
    "overlap": lambda made: made.annotations.update({"tarsplit-position": "0:20:30"}),
    "version": lambda made: made.top.update({"version": 2}),
    "no digest": lambda made: made.top.update({"tarSplitDigest": ""}),
    "split digest": lambda made: made.top.update({"tarSplitDigest": digest(b"")}),
    "not a table": lambda made: made.top.update({"entries": 5}),
    "swapped": swap_files,
    "type": lambda made: entry(made, chunkType="odd"),
    "size": lambda made: entry(made, chunkSize=7),
    "part digest": lambda made: entry(made, chunkDigest="sha256:" + 64 * "0"),
    "negative": lambda made: entry(made, offset=-1),
    "far": lambda made: entry(made, offset=1 << 39),
    "fewer files": lambda made: made.entries.pop(1),
    "more files": lambda made: made.entries.append(
        {"type": "reg", "name": "x", "size": 1, "digest": digest(b"1")}
        | {key: len(made.frames) for key in ("offset", "endOffset")}
    ),
    "other tar": lambda made: made.split.insert(2, {"type": 2, "payload": bytes(512)}),
    "no base64": lambda made: made.split.insert(2, {"type": 2, "payload": "?"}),
    "unknown kind": lambda made: made.split.insert(2, {"type": 3, "payload": None}),
    "no kind": lambda made: made.split.insert(2, {}),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(puller: Puller, tmp_path: Path, lie: str) -> None:
    """A layer that says untrue things of its parts is pulled whole, and a sentence says so."""
    told = spoiled(LIES[lie])
    puller.pull(FIRST)
    assert puller.pull(told) == pulled_whole(tmp_path, told)
    assert puller.whole == [digest(told.stored)]
    (doubt,) = puller.doubts
    assert doubt.startswith(f"layer {digest(told.stored)} was pulled whole")


@pytest.mark.parametrize("lie", ["other tar", "more files"])
def test_bounds_after_a_lie(puller: Puller, lie: str) -> None:
    """What a layer used up of the bounds before it had to be pulled whole is not counted twice."""
    puller.limits = Limits(unpacked=len(SECOND.plain) * 3 // 2, entries=205)
    puller.pull(FIRST)
    puller.pull(spoiled(LIES[lie]))
    assert len(puller.doubts) == 1


def test_liar(puller: Puller, tmp_path: Path) -> None:
    """A layer whose table gives its bytes the digests of others is forgotten once that shows.

    The layer that met it is not to blame.
    """
    liar = spoiled(swap_files)
    puller.pull(liar)
    assert puller.pull(FIRST) == pulled_whole(tmp_path, FIRST)
    assert puller.doubts == ()
    assert not kept_at(tmp_path / "kept", Digest.parse(digest(liar.plain))).exists()
    third = chunked_layer(tree(b"again", nth=20))
    assert puller.pull(third) == pulled_whole(tmp_path, third)
    assert puller.doubts == ()
    assert puller.whole == []


def test_zeros_that_are_none(puller: Puller, tmp_path: Path) -> None:
    """Bytes that a table calls zeros are digested as all others once a tar is not the right one."""
    begin = NOISE[: NOISE.index(MARK, 700_000) + len(MARK)]
    plain = tar(file("usr/holed", begin + b"x" * (300_000 - len(MARK)) + MARK + b"end"))
    liar = chunked(plain)
    (part,) = [one for one in liar.entries if one.get("chunkSize") == 300_000]
    part["chunkType"] = "zeros"
    puller.pull(liar.layer(plain))
    assert puller.doubts == ()
    honest = chunked_layer(tar(file("usr/holed", begin + bytes(300_000) + b"end")))
    assert puller.pull(honest) == pulled_whole(tmp_path, honest)
    assert puller.doubts == ()


def test_liar_among_others(puller: Puller, tmp_path: Path) -> None:
    """Where one layer lied, what other layers have is found at the next attempt."""
    liar = spoiled(swap_files)
    puller.pull(liar, FIRST)
    kept = kept_at(puller.folder / "kept", Digest.parse(digest(liar.plain)))
    os.utime(kept, (1 << 33, 1 << 33))  # it was used last, and so is asked first
    third = chunked_layer(tree(b"again", nth=20))
    assert puller.pull(third) == pulled_whole(tmp_path, third)
    assert puller.doubts == ()
    assert puller.whole == []
    assert not kept.exists()


def test_wrong_table(puller: Puller) -> None:
    """A table that was found to be wrong is asked nothing later."""
    puller.pull(FIRST)
    puller.pull(spoiled(swap_files))
    kept_at(puller.folder / "kept", Digest.parse(digest(FIRST.plain))).unlink()
    puller.pull(chunked_layer(tree(b"again", nth=20)))
    assert puller.doubts == ()
    assert len(puller.whole) == 1
    assert puller.asked == []


def test_no_tar_split(puller: Puller, tmp_path: Path) -> None:
    """A layer of an old writer, without tar-split data, is pulled whole without a word."""
    kept = {key: text for key, text in SECOND.annotations.items() if "tarsplit" not in key}
    old = replace(SECOND, annotations=kept)
    puller.pull(FIRST)
    assert puller.pull(old) == pulled_whole(tmp_path, old)
    assert puller.asked == []
    assert puller.doubts == ()


def test_estargz(puller: Puller, tmp_path: Path) -> None:
    """An eStargz layer, gzip with a table of its own, is pulled whole without a word.

    Source: https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md
    """
    notes = {
        "containerd.io/snapshot/stargz/toc.digest": digest(b"a table"),
        "io.containers.estargz.uncompressed-size": "1",
    }
    estargz = replace(layer_of(SECOND.plain), annotations=notes)
    puller.pull(FIRST)
    assert puller.pull(estargz) == pulled_whole(tmp_path, estargz)
    assert puller.asked == []
    assert puller.whole == [digest(estargz.stored)]
    assert puller.doubts == ()


def failing(error: SyncdError, *, after: int = 0) -> Callable[[OpenedImage], OpenedImage]:
    """Return what makes the ranges of an image end with an error after some bytes."""

    class Failing:
        def __init__(self, stream: Reader) -> None:
            self._stream = stream
            self._left = after
            self.close = stream.close

        def read(self, size: int, /) -> bytes:
            if not self._left:
                raise error
            data = self._stream.read(min(size, self._left))
            self._left -= len(data)
            return data

    def spoil(opened: OpenedImage) -> OpenedImage:
        def open_ranges(blob: Descriptor, ranges: Sequence[Range]) -> Reader:
            return Failing(opened.ranges(blob, ranges))

        return replace(opened, open_ranges=open_ranges)

    return spoil


@pytest.mark.parametrize("error", [NoRangesError("none"), NotFoundError("gone")], ids=repr)
@pytest.mark.parametrize("after", [0, 100, 30_000])
def test_no_ranges(puller: Puller, tmp_path: Path, error: SyncdError, after: int) -> None:
    """A registry that serves no ranges, or stops to, is asked for the whole blob."""
    puller.pull(FIRST)
    puller.spoil = failing(error, after=after)
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert puller.whole == [digest(SECOND.stored)]
    assert puller.doubts == ()


@pytest.mark.parametrize("after", [0, 100, 30_000])
def test_registry_away(puller: Puller, after: int) -> None:
    """A registry that is away fails the conversion once the whole blob does not come either."""
    puller.pull(FIRST)
    away = RegistryUnavailableError("away")
    fails = failing(away, after=after)

    def open_layer(blob: Descriptor) -> Reader:
        puller.whole.append(str(blob.digest))
        raise away

    puller.spoil = lambda opened: replace(fails(opened), open_layer=open_layer)
    with pytest.raises(RegistryUnavailableError):
        puller.pull(SECOND)
    assert puller.whole == [digest(SECOND.stored)]


def test_ranges_away(puller: Puller, tmp_path: Path) -> None:
    """Where ranges alone fail, for ever, blobs are pulled whole, and no further layer waits."""
    others = [chunked_layer(tree(bytes([nth]))) for nth in range(8)]
    puller.pull(FIRST)
    fails = failing(RegistryUnavailableError("away"))
    asked: list[str] = []

    def spoil(opened: OpenedImage) -> OpenedImage:
        spoiled = fails(opened)

        def open_ranges(blob: Descriptor, ranges: Sequence[Range]) -> Reader:
            asked.append(str(blob.digest))
            return spoiled.ranges(blob, ranges)

        return replace(spoiled, open_ranges=open_ranges)

    puller.spoil = spoil
    assert puller.pull(SECOND, *others) == pulled_whole(tmp_path, SECOND, *others)
    assert sorted(puller.whole) == sorted(digest(one.stored) for one in (SECOND, *others))
    assert len(asked) <= LAYERS_AT_A_TIME
    assert puller.doubts == ()


def test_other_bytes(puller: Puller, tmp_path: Path) -> None:
    """Other bytes than a part's are noticed by its digest, and the layer is pulled whole."""
    puller.pull(FIRST)
    spoil = puller.spoil
    place = SECOND.annotations[f"{PREFIX}manifest-position"]
    table = int(place.partition(":")[0])

    def lying(opened: OpenedImage) -> OpenedImage:
        given = spoil(opened)

        def open_ranges(blob: Descriptor, ranges: Sequence[Range]) -> Reader:
            stream = given.ranges(blob, ranges)
            return stream if ranges[0].offset >= table else Lying(stream)

        return replace(given, open_ranges=open_ranges)

    puller.spoil = lying
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert puller.whole == [digest(SECOND.stored)]
    assert len(puller.doubts) == 1


def test_not_worth_it(puller: Puller) -> None:
    """A layer of which nearly all is new is pulled whole, and so is one too small to look at."""
    puller.pull(FIRST)
    other = random.Random(8).randbytes(1 << 20)
    new = chunked_layer(tar(file("usr/other", other), file("usr/000", NOISE[:3000])))
    small = chunked_layer(tar(file("usr/000", NOISE[:3000])))
    puller.pull(new, small)
    assert sorted(puller.whole) == sorted([digest(new.stored), digest(small.stored)])
    assert {blob for blob, _ in puller.asked} == {digest(new.stored)}


@pytest.mark.parametrize("times", [5, 60])
def test_alternating_parts(puller: Puller, tmp_path: Path, times: int) -> None:
    """A file whose parts lie in one frame and in another by turns is not worth so many looks."""
    puller.pull(FIRST)
    parts = [one for one in chunked(FIRST.plain).entries if one.get("name") == "usr/large"]
    first, *_, last = [
        NOISE[one.get("chunkOffset", 0) :][: one["chunkSize"]]
        for one in parts
        if "chunkSize" in one
    ][:-1]
    other = chunked_layer(tar(file("usr/turns", (first + last) * times)))
    assert puller.pull(other) == pulled_whole(tmp_path, other)
    assert puller.whole == ([digest(other.stored)] if times == 60 else [])
    assert puller.doubts == ()


def test_repeated_part(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """To find thousands of parts that stand together nowhere costs as much for each of them."""
    monkeypatch.setattr(pull, "may_pay", lambda *_: True)
    monkeypatch.setattr(pull, "pays", lambda *_: True)
    looked = []
    places = index.PartIndex._places

    def counted(*arguments: Any) -> Any:
        looked.append(arguments[3])
        return places(*arguments)

    monkeypatch.setattr(index.PartIndex, "_places", counted)
    puller.pull(chunked_layer(tar(file("a", b"again7but not so7")), b"7"))
    puller.pull(chunked_layer(tar(file("a", b"again7" * 3000)), b"7"))
    assert puller.whole == []
    assert len(looked) > 3000
    assert sum(looked) < 3000 * 200


def test_bounds_hold(puller: Puller) -> None:
    """What makes a layer unfit fails the conversion however the layer was pulled."""
    puller.pull(FIRST)
    bad = chunked_layer(tree(b"changed")[:-1024] + file("../escape") + bytes(1024))
    with pytest.raises(ImageError):
        puller.pull(bad)
