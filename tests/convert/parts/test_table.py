"""What `convert.parts.table` and its neighbours promise of tables and tar-split data."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.convert.parts import json_text, positions, table, tar_split
from syncd.convert.parts.positions import Positions, Stretch
from syncd.errors import ImageError, VerificationError
from syncd.limits import unbounded
from syncd.oci.manifest import Descriptor
from syncd.oci.reference import Digest

BEGIN = 1 << 30  # where the table is said to begin: behind all frames
HEX = "sha256:" + "ab" * 32


def read(text: bytes, plain: int | None = None) -> table.Table:
    """Read a table of this text."""
    stored = zstandard.compress(text)
    place = Stretch(BEGIN, len(stored), len(text) if plain is None else plain)
    where = Positions(place, Stretch(0, 0, 0), Digest.of(stored))
    return table.parse(stored, where, unbounded)


def split(text: bytes) -> list[bytes | int]:
    """Read tar-split data of this text."""
    stored = zstandard.compress(text)
    place = Stretch(0, len(stored), len(text))
    return list(tar_split.segments(stored, place, Digest.of(stored), unbounded))


def document(*entries: Any, **more: Any) -> bytes:
    fields = {"version": 1, "entries": list(entries), "tarSplitDigest": HEX} | more
    return json.dumps(fields).encode()


NUMBERS = st.integers(-2, 1 << 41) | st.none() | st.booleans() | st.floats() | st.text(max_size=3)
ENTRIES = st.fixed_dictionaries(
    {"type": st.sampled_from(["reg", "chunk", "dir", "x"]) | st.none()},
    optional={
        "size": st.integers(0, 9) | NUMBERS,
        "offset": st.integers(0, 9) | NUMBERS,
        "endOffset": st.integers(0, 9) | NUMBERS,
        "chunkSize": st.integers(0, 9) | NUMBERS,
        "digest": st.just(HEX) | NUMBERS,
        "chunkDigest": st.just(HEX) | NUMBERS,
        "chunkType": st.sampled_from(["", "zeros", "x"]) | NUMBERS,
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@settings(max_examples=400)
@given(st.lists(ENTRIES | JSON, max_size=8))
def test_any_entries(entries: list[Any]) -> None:
    """Whatever entries say, they are refused, or the parts fill their files and lie in order."""
    try:
        found = read(document(*entries))
    except ImageError:
        return
    first = at = 0
    for end, size in zip(found.file_ends, found.file_sizes, strict=True):
        assert sum(found.sizes[first:end]) == size
        first = end
    assert first == len(found.sizes)
    for nth, (begin, end) in enumerate(zip(found.offsets, found.ends, strict=True)):
        assert at <= begin <= end <= BEGIN
        at = begin
        assert len(found.digest(nth)) == 32
        assert found.is_zeros(nth) or found.part(nth).end > begin


@settings(max_examples=300)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_text(text: bytes) -> None:
    """Whatever a table or tar-split data consist of, they are read or refused."""
    for act in (read, split):
        try:
            act(text)
        except ImageError:
            continue


@settings(max_examples=200)
@given(st.lists(ENTRIES, max_size=6), st.integers(1, 40), st.sampled_from([None, 0, 3]))
def test_pieces(entries: list[Any], piece: int, indent: int | None) -> None:
    """Where the pieces of a text end, and how it is spaced, makes no difference."""
    fields = {"tarSplitDigest": HEX, "else": [{"a": [1, "},{"]}], "entries": entries, "version": 1}
    results: list[table.Table | None] = []
    for text, size in (
        (document(*entries), 1 << 18),
        (json.dumps(fields, indent=indent).encode(), piece),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_text, "_PIECE", size)
            try:
                results.append(read(text))
            except ImageError:
                results.append(None)
    assert results[0] == results[1]


def entries(number: int, **more: object) -> list[dict[str, object]]:
    """Return files of one byte, each with a byte of the blob."""
    one = {"type": "reg", "size": 1, "digest": HEX}
    return [one | {"offset": nth, "endOffset": nth + 1} | more for nth in range(1, number + 1)]


def test_misleading_names() -> None:
    """A name that looks like the end of an entry is a name."""
    for nth in (2, 300):
        fields = {"version": 1, "entries": entries(nth, name='"},{"'), "tarSplitDigest": HEX}
        found = read(json.dumps(fields, separators=(",", ":")).encode())
        assert len(found.sizes) == nth


def test_a_text_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only looks like many entries is tried as many once a piece, and not at every entry."""
    tried = list[str]()
    loads = json.loads

    def counting(text: str) -> Any:
        tried.append(text)
        return loads(text)

    monkeypatch.setattr(json, "loads", counting)
    text = b'{"version":1,"entries":[%b{"a":"},{"}],"tarSplitDigest":"%b"}'
    read(text % (b"{}," * 20_000, HEX.encode()))
    assert len(tried) <= 2


def test_no_bytes() -> None:
    """A part that has bytes of a file and none of the blob is refused, wherever it stands."""
    for place in range(3):
        files = entries(3)
        files[place]["endOffset"] = files[place]["offset"]
        with pytest.raises(ImageError, match="no bytes in the blob"):
            read(document(*files))


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries without a content are bounded, too."""
    monkeypatch.setattr(table, "ENTRIES_MAX", 3)
    read(document(*[{"type": "dir"}] * 3))
    with pytest.raises(ImageError, match="more than 3 entries"):
        read(document(*[{"type": "dir"}] * 4))


def test_large_part() -> None:
    """A part that no row can name is refused; zeros may be many."""
    huge = {"type": "reg", "size": table.PART_MAX + 1, "offset": 1, "endOffset": 2, "digest": HEX}
    with pytest.raises(ImageError, match="a part is larger"):
        read(document(huge))
    assert read(document(huge | {"chunkType": "zeros"})).sizes[0] == table.PART_MAX + 1


def test_no_entries() -> None:
    """An empty layer has no entries: Go writes null."""
    for entries in (list[Any](), None):
        assert not read(document(entries=entries)).sizes


def test_holes() -> None:
    """A hole is a part without frames, and parts end where the next one begins."""
    first = {"type": "reg", "size": 9, "offset": 1, "endOffset": 30, "chunkSize": 2}
    rest = [
        {"type": "chunk", "chunkSize": 4, "offset": 10, "chunkType": "zeros", "chunkDigest": HEX},
        {"type": "chunk", "chunkSize": 3, "offset": 20, "chunkDigest": HEX},
    ]
    found = read(document(first | {"chunkDigest": HEX, "digest": "unused"}, *rest))
    digest = bytes.fromhex("ab" * 32)
    assert [found.part(nth) for nth in (0, 2)] == [(digest, 2, 1, 10), (digest, 3, 20, 30)]
    assert found.is_zeros(1)
    assert list(found.sizes) == [2, 4, 3]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b'{"entries":' + b"[" * 3_000_000,
    "deep objects": lambda: b'{"a":' * 1_000_000,
    "one value": lambda: b'{"version":"' + b"1" * 20_000_000 + b'"}',
    "long number": lambda: b'{"version":' + b"1" * 20_000_000 + b"}",
    "many values": lambda: b'{"entries":[[' + b"[]," * 5_000_000,
    "many entries": lambda: b'{"entries":[' + b"{}," * 5_000_000,
    "spaces": lambda: b" " * 20_000_000,
    "zeros": lambda: bytes(20_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("act", [read, split])
def test_hostile_texts(name: str, act: Callable[[bytes], object]) -> None:
    """A text of 20 MB that compresses to nothing takes little memory before it is refused."""
    text = HOSTILE[name]()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(ImageError):
            act(text)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


@pytest.mark.parametrize("plain", [0, 10, 1 << 20])
def test_other_size(plain: int) -> None:
    """A table of another size than the annotations say is refused as soon as that shows."""
    with pytest.raises(ImageError):
        read(document(), plain)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of too many parts is refused, and each is counted before."""
    monkeypatch.setattr(table, "PARTS_MAX", 3)
    read(document(*entries(3)))
    with pytest.raises(ImageError, match="more than 3 parts"):
        read(document(*entries(300)))


@pytest.mark.parametrize(
    "line", [b'{"type":2}],"":5,"x":[1', b'{"type":2}],"":null,"x":[1', b"5", b"]"]
)
def test_lines_that_end_their_batch(line: bytes) -> None:
    """No line of tar-split data gets out of the list that the lines are read as."""
    with pytest.raises(ImageError):
        split(line)


@pytest.mark.parametrize(("place", "tar_split"), [("5:0:9:1", "20:9:9"), ("5:9:9:1", "20:0:0")])
def test_annotations_without_bytes(place: str, tar_split: str) -> None:
    """Annotations that name no bytes are refused: no range can be asked for."""
    blob = Descriptor(
        "application/vnd.oci.image.layer.v1.tar+zstd",
        Digest.parse(HEX),
        1 << 20,
        annotations=tuple(
            (f"io.github.containers.zstd-chunked.{key}", text)
            for key, text in {
                "manifest-checksum": HEX,
                "manifest-position": place,
                "tarsplit-position": tar_split,
            }.items()
        ),
    )
    with pytest.raises(ImageError, match="name no bytes"):
        Positions.of(blob)


def test_annotated_bounds() -> None:
    """Annotations that name too large a table, or data, are refused before anything is fetched."""
    blob = Descriptor(
        "application/vnd.oci.image.layer.v1.tar+zstd",
        Digest.parse(HEX),
        1 << 40,
        annotations=tuple(
            (f"io.github.containers.zstd-chunked.{key}", text)
            for key, text in {
                "manifest-checksum": HEX,
                "manifest-position": f"5:{positions.STORED_MAX}:{positions.TABLE_MAX}:1",
                "tarsplit-position": f"{1 << 30}:9:9",
            }.items()
        ),
    )
    assert Positions.of(blob) is not None
    for old, new in (
        (f":{positions.STORED_MAX}:", f":{positions.STORED_MAX + 1}:"),
        (f":{positions.TABLE_MAX}:", f":{positions.TABLE_MAX + 1}:"),
        (":9:9", f":9:{positions.TAR_SPLIT_MAX + 1}"),
    ):
        notes = tuple((key, text.replace(old, new)) for key, text in blob.annotations)
        with pytest.raises(ImageError):
            Positions.of(Descriptor(blob.media_type, blob.digest, blob.size, annotations=notes))


def test_segments() -> None:
    """Raw bytes come decoded, contents as their sizes, and what is empty does not come."""
    lines = [
        {"type": 2, "payload": base64.b64encode(b"head").decode(), "position": 0},
        {"type": 1, "name": "a", "size": 5, "payload": "AAAA", "position": 1},
        {"type": 1, "name": "b", "payload": None, "position": 2},
        {"type": 2, "payload": None, "position": 3},
        {"type": 1, "name_raw": "/w==", "size": 7, "position": 4},
    ]
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    assert split(text) == [b"head", 5, b"", 7]
    assert split(text.rstrip()) == [b"head", 5, b"", 7]


def test_other_digests() -> None:
    """Other bytes than those that were promised are refused before they are read."""
    stored = zstandard.compress(document())
    where = Positions(Stretch(BEGIN, len(stored), 1), Stretch(0, 0, 0), Digest.of(b""))
    with pytest.raises(VerificationError):
        table.parse(stored, where, unbounded)
    with pytest.raises(VerificationError):
        list(tar_split.segments(stored, Stretch(0, len(stored), 1), Digest.of(b""), unbounded))
