"""What becomes of layers by parts when some give other bytes, and others have the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from syncd.convert.pipeline import LAYERS_AT_A_TIME
from syncd.errors import NoRangesError, VerificationError
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.range_reader import Range
from syncd.oci.source import OpenedImage
from tests.chunked import chunked, chunked_layer
from tests.convert.parts.pulling import Lying, Puller, pulled_whole
from tests.convert.parts.test_pull import FIRST, LIES, SECOND, spoiled, swap_files, tree
from tests.images import Layer, digest


@dataclass
class Mirrors:
    """Mirrors, asked one after the other: the first ones lie, and behind them is the registry.

    `served` are the numbers of the places that were asked for ranges, `mistrusted` those that are
    asked no more for ranges of a blob, `vouched` the blobs whose ranges were said to be right.
    """

    number: int
    liars: int
    served: list[int] = field(default_factory=list)
    mistrusted: dict[str, set[int]] = field(default_factory=dict)
    vouched: set[str] = field(default_factory=set)
    registry_serves: bool = True

    def before(self, opened: OpenedImage) -> OpenedImage:
        """Let an image's ranges come through the mirrors."""

        def open_ranges(blob: Descriptor, ranges: Sequence[Range]) -> Reader:
            passed = self.mistrusted.get(str(blob.digest), set())
            place = next(n for n in range(self.number + 1) if n not in passed)
            self.served.append(place)
            if place == self.number and not self.registry_serves:
                raise NoRangesError("whole blobs alone")
            stream = opened.ranges(blob, ranges)
            return Lying(stream) if place < self.liars else stream

        def mistrust(blob: Descriptor) -> bool:
            passed = self.mistrusted.setdefault(str(blob.digest), set())
            if len(passed) == self.number:
                return False
            passed.add(len(passed))
            return True

        def vouch(blob: Descriptor) -> None:
            self.vouched.add(str(blob.digest))

        return replace(opened, open_ranges=open_ranges, mistrust=mistrust, vouch=vouch)


@pytest.mark.parametrize("liars", [1, 2])
def test_liars(tmp_path: Path, liars: int) -> None:
    """Layers whose parts come wrong from mirrors are pulled by parts from others, unblamed."""
    mirrors = Mirrors(2, liars)
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    layers = [SECOND, *(chunked_layer(tree(bytes([nth]))) for nth in range(LAYERS_AT_A_TIME))]
    puller.spoil = mirrors.before
    assert puller.pull(*layers) == pulled_whole(tmp_path, *layers)
    assert (puller.whole, puller.doubts) == ([], ())
    names = {digest(layer.stored) for layer in layers}
    assert mirrors.mistrusted == {name: set(range(liars)) for name in names}
    assert mirrors.vouched == names


@pytest.mark.parametrize("lie", ["swapped", "checksum", "split digest", "part digest"])
def test_image_to_blame(tmp_path: Path, lie: str) -> None:
    """An image that is wrong everywhere is pulled whole once all were asked, and is blamed."""
    mirrors = Mirrors(2, 0)
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    puller.spoil = mirrors.before
    told = spoiled(LIES[lie])
    assert puller.pull(told) == pulled_whole(tmp_path, told)
    assert puller.whole == [digest(told.stored)]
    assert len(puller.doubts) == 1
    assert mirrors.vouched == set()
    assert set(mirrors.served) == {0, 1, 2}


def test_registry_without_ranges(tmp_path: Path) -> None:
    """What a mirror gave wrong, and nobody else gives by parts, is pulled whole, and told."""
    mirrors = Mirrors(1, 1, registry_serves=False)
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    puller.spoil = mirrors.before
    assert puller.pull(SECOND) == pulled_whole(tmp_path, SECOND)
    assert (puller.whole, len(puller.doubts)) == ([digest(SECOND.stored)], 1)
    assert mirrors.vouched == set()


def test_many_layers_to_blame(tmp_path: Path) -> None:
    """A layer that is wrong everywhere is asked of each place once."""
    mirrors = Mirrors(1, 0)
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    puller.spoil = mirrors.before
    layers = [wrong(bytes([nth])) for nth in range(3 * LAYERS_AT_A_TIME)]
    assert puller.pull(*layers) == pulled_whole(tmp_path, *layers)
    assert len(puller.whole) == len(layers)
    tables_and_parts = 2 * len(layers)
    assert [mirrors.served.count(place) for place in (0, 1)] == [tables_and_parts] * 2


def wrong(change: bytes) -> Layer:
    """Return a layer whose table names the parts of two files in the wrong order."""
    made = chunked(tree(change))
    swap_files(made)
    return made.layer(tree(change))


def test_good_layer_beside(tmp_path: Path) -> None:
    """A layer that was right at once says nothing of who gave another one wrong."""
    mirrors, beside = Mirrors(1, 0), wrong(b"other")
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    puller.spoil = mirrors.before
    puller.pull(SECOND, beside)
    assert len(puller.doubts) == 1
    assert set(mirrors.mistrusted) == {digest(beside.stored)}
    assert mirrors.vouched == {digest(SECOND.stored)}


def test_blob_of_two_tars(tmp_path: Path) -> None:
    """An image that says of one blob that it holds two tars makes nobody look like a liar."""
    mirrors = Mirrors(1, 0)
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    puller.spoil = mirrors.before
    with pytest.raises(VerificationError, match="diff_id"):
        puller.pull(SECOND, replace(SECOND, plain=b"another tar"))
    assert mirrors.mistrusted == {}


@pytest.mark.parametrize("lie", ["not a table", "swapped", "checksum"])
def test_table_of_a_whole_blob(tmp_path: Path, lie: str) -> None:
    """What is wrong in a blob that was verified as a whole is nobody's fault but the image's."""
    mirrors = Mirrors(1, 0)
    puller = Puller(tmp_path)
    puller.spoil = mirrors.before
    puller.pull(spoiled(LIES[lie]))
    assert len(puller.doubts) == (lie != "swapped")  # which only its parts could show
    assert mirrors.mistrusted == {}


def test_image_that_says_nothing_true(tmp_path: Path) -> None:
    """Annotations that cannot be true are nobody's fault but the image's."""
    mirrors = Mirrors(1, 0)
    puller = Puller(tmp_path)
    puller.pull(FIRST)
    puller.spoil = mirrors.before
    puller.pull(spoiled(LIES["words"]))
    assert len(puller.doubts) == 1
    assert mirrors.mistrusted == {}
