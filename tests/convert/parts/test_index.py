"""What `convert.parts.index` promises: which parts are here, within its bounds."""

from __future__ import annotations

import hashlib
import os
import random
import tracemalloc
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.convert.frame_store import FrameSizes, FrameStore
from syncd.convert.parts import index, pull, rows
from syncd.convert.parts.local import LocalParts
from syncd.convert.parts.plan import plan_of
from syncd.convert.parts.ranges import ranges_of
from syncd.convert.parts.table import DIGEST, Table
from syncd.convert.scratch import ScratchSpace, kept_at
from syncd.errors import LimitError
from syncd.limits import Hold, unbounded
from syncd.oci.reference import Digest
from tests.archives import file, tar
from tests.chunked import MARK, chunked_layer
from tests.convert.parts.pulling import Puller
from tests.images import digest

NOISE = random.Random(7).randbytes(3 << 20).replace(MARK, b"..")
CONTENTS = [NOISE[at : at + 3000] for at in range(0, 600 * 3000, 3000)]


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path)


def keep(puller: Puller, contents: Sequence[bytes], moment: int = 0) -> None:
    """Keep a layer of files with these contents, used last at that moment."""
    layer = chunked_layer(tar(*[file(f"{nth:05}", one) for nth, one in enumerate(contents)]))
    puller.pull(layer)
    kept = kept_at(puller.folder / "kept", Digest.parse(digest(layer.plain)))
    os.utime(kept, (moment, moment))


@contextmanager
def parts(puller: Puller, hold: Hold = unbounded) -> Iterator[index.PartIndex]:
    """Provide the index of what was kept."""
    space = ScratchSpace(puller.folder, puller.folder / "kept")
    with FrameStore(1, space.new(), []) as frames:
        found = index.PartIndex(space, frames, hold)
        try:
            yield found
        finally:
            found.close()


def table(contents: Sequence[bytes]) -> Table:
    """Return the table of files that have one part each."""
    numbers = range(1, len(contents) + 1)
    sizes = array("Q", map(len, contents))
    return Table(
        b"".join(hashlib.sha256(one).digest() for one in contents),
        sizes,
        array("Q", (nth * 100_000 for nth in numbers)),
        array("Q", (nth * 100_000 + 1 for nth in numbers)),
        array("Q", numbers),
        sizes,
        Digest.of(b""),
    )


@pytest.mark.parametrize(("bound", "layers"), [("PARTS_MAX", 2), ("ROWS_MAX", 1)])
def test_full_index(
    puller: Puller, monkeypatch: pytest.MonkeyPatch, bound: str, layers: int
) -> None:
    """A full index has the parts of the layers that were used last."""
    groups = [CONTENTS[at : at + 200] for at in (0, 200, 400)]
    for moment, contents in enumerate(reversed(groups)):
        keep(puller, contents, moment)
    monkeypatch.setattr(index, bound, 300)
    with parts(puller) as found:
        assert not found.is_empty()
        has = [bool(found.find(table(contents), 0, 1).places) for contents in groups]
    assert has == [nth < layers for nth in range(3)]


def test_without_memory(puller: Puller) -> None:
    """Beyond the memory's bound there are no parts, and no error."""
    keep(puller, CONTENTS[:200])

    def hold(amount: int) -> None:
        raise LimitError(f"no {amount} bytes")

    with parts(puller, hold) as found:
        assert found.is_empty()


def test_rows_that_no_index_takes(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that no index would take are not kept."""
    monkeypatch.setattr(pull, "PARTS_MAX", 100)
    keep(puller, CONTENTS[:200])
    with parts(puller) as found:
        assert found.is_empty()


@pytest.mark.parametrize(
    ("order", "reads", "read"),
    [(lambda contents: contents, 20, 4 << 20), (lambda contents: contents[::-1], 601, 2 << 20)],
    ids=["as kept", "backwards"],
)
def test_reading(
    puller: Puller,
    monkeypatch: pytest.MonkeyPatch,
    order: Callable[[list[bytes]], list[bytes]],
    reads: int,
    read: int,
) -> None:
    """What lies together is read together, and of what does not lie so nothing else is read."""
    keep(puller, CONTENTS)
    sizes: list[int] = []
    reading = index.PartIndex.read

    def noted(self: index.PartIndex, layer: int, offset: int, size: int) -> bytes:
        sizes.append(size)
        return reading(self, layer, offset, size)

    monkeypatch.setattr(index.PartIndex, "read", noted)
    contents = order(CONTENTS)
    with parts(puller) as found:
        assert not found.is_empty()
        plan = plan_of(table(contents), found, unbounded)
        local = LocalParts(found)
        for source, content in zip(plan.sources, contents, strict=True):
            assert isinstance(source, index.Kept)
            assert local.content(source) == content
    assert len(sizes) <= reads
    assert sum(sizes) <= read


def test_there_and_back(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """To go to and fro among small contents reads little more than what is wanted."""
    keep(puller, CONTENTS)
    sizes: list[int] = []

    def noted(_: index.PartIndex, _layer: int, _offset: int, size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    monkeypatch.setattr(index.PartIndex, "read", noted)
    with parts(puller) as found:
        local = LocalParts(found)
        for turn in range(100):
            local.content(index.Kept(0, 100_000 * (turn % 2), 8))
    assert sum(sizes) < 100 * 32


def test_count_of_liars(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees a layer counted as forgotten finds nothing in it any more."""
    keep(puller, CONTENTS[:200])
    counts: list[int] = []
    learn = index.PartIndex._learn

    def noted(self: index.PartIndex, layer: int, known: dict[bytes, int]) -> None:
        counts.append(self.forgotten)
        learn(self, layer, known)

    monkeypatch.setattr(index.PartIndex, "_learn", noted)
    keep(puller, CONTENTS[200:400], 1)
    with parts(puller) as found:
        assert not found.is_empty()
        found.forget_liars(table(CONTENTS[:1]), lambda place: memoryview(bytes(place.size)))
        assert found.forgotten == 1
        assert not found.find(table(CONTENTS[:1]), 0, 1).places
        assert found.find(table(CONTENTS[200:201]), 0, 1).places
    assert set(counts) == {0}


def test_stretches() -> None:
    """Rows are one stretch where their bytes are; a frame has as much as its last row says."""
    largest = FrameSizes().largest
    found = rows.Rows(
        [bytes(32)] * 4,
        memoryview(bytes(8 * DIGEST)),
        memoryview(array("Q", [10, 20, 5, largest, 2 * largest - 5, 7, 3, 4])),
        memoryview(array("Q", [0, 10, 31, 0, 0, largest - 5, 2, 0])),
        memoryview(array("I", [0, 0, 0, 1, 2, 3, 4, 0])),
    )
    begins, wholes = index._stretches(found, largest)
    assert list(begins) == [0, 0, 2, 3, 3, 3, 3, 7]
    assert list(wholes) == [largest, largest, largest, 5]


def test_memory_of_a_plan(puller: Puller) -> None:
    """What is held for a plan is what it and its ranges take, about, when nothing is here."""
    wanted = table([b"%d" % nth for nth in range(20_000)])
    held: list[int] = []
    with parts(puller) as found:
        assert found.is_empty()
        tracemalloc.start()
        plan = plan_of(wanted, found, held.append)
        ranges = ranges_of(plan.missing)
        _, taken = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(plan.missing) == 20_000
    assert ranges
    assert 0.8 * taken <= sum(held) <= 1.5 * taken
