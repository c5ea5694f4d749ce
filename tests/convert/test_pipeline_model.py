"""Whole conversions against the naive model of the overlay, contents and all.

Stacks of layers are drawn as in `test_overlay_model`; here their files are small, just large, or
longer than a frame, so that contents go both ways through syncd.  Then the same stack is converted
with what conversions of its lower layers left behind.
"""

from __future__ import annotations

import tempfile
from copy import deepcopy
from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.convert.frame_store import FrameSizes
from syncd.convert.options import Options
from syncd.convert.pipeline import convert
from syncd.convert.scratch import ScratchSpace
from syncd.oci.source import open_image
from syncd.tar.member import FILE
from tests import archives
from tests.convert.test_overlay_model import CHANGES, PATHS, Change, Model, RefusedError
from tests.images import Layer, image, layer, write_layout
from tests.templates import read

FRAME_MAX, LARGE = FrameSizes().largest, FrameSizes().large
SIZES = (LARGE, FRAME_MAX + 3, 5, LARGE - 1, 0)
FILES = st.builds(Change, st.just("file"), PATHS)
STACKS = st.lists(st.lists(st.one_of(FILES, FILES, CHANGES), max_size=7), max_size=4)


def content(label: int) -> bytes:
    """Return what the file of this label holds."""
    size = SIZES[label % len(SIZES)]
    return (b"%d, " % label * (size // 3 + 1))[:size]


def archived(label: int, change: Change) -> bytes:
    """Return a change's member, a file with the content of its label."""
    if change.act == "file":
        return archives.file(change.path, content(label), mtime=label * 10**9, uid=label)
    return change.archived(label)


def accepted(stack: list[list[Change]], model: Model) -> list[list[tuple[int, Change]]]:
    """Return the layers, labelled, up to the first that the model refuses."""
    labels = count(1)
    layers = []
    for changes in stack:
        labelled = [(next(labels), change) for change in changes]
        before = deepcopy(model.table)
        try:
            model.apply(labelled)
        except RefusedError:
            model.table = before
            break
        layers.append(labelled)
    return layers


def converted(
    layers: list[Layer], folder: Path, earlier: list[tuple[Path, Path]] | None
) -> tuple[Path, Path]:
    """Convert the image of these layers in a new folder below this one; return file and table."""
    place = Path(tempfile.mkdtemp(dir=folder))
    opened = open_image(f"oci:{write_layout(place / 'layout', {'': image(*layers)})}")
    kept = None if earlier is None else folder / "kept"
    template, table = place / "template.tar.zst", place / "table"
    options = Options(ScratchSpace(place, kept), level=1, earlier=earlier, table=table)
    convert(opened, template, options)
    assert table.exists() is (earlier is not None)
    return template, table


@settings(max_examples=200, deadline=None)
@given(STACKS)
def test_contents(stack: list[list[Change]]) -> None:
    """Every file has its content, whatever its size, and whatever was converted before."""
    model = Model()
    layers = accepted(stack, model)
    made = [layer(*(archived(label, one) for label, one in changes)) for changes in layers]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone, _ = converted(made, folder, None)
        assert [
            (one.name.decode(), one.kind, one.mtime // 10**9, one.target.decode())
            for one in read(alone)
        ] == model.lines()
        for one in read(alone):
            if one.kind == FILE:
                assert one.content == content(one.mtime // 10**9)
        earlier: list[tuple[Path, Path]] = []
        for most in range(len(made) + 1):
            template, table = converted(made[:most], folder, earlier)
            earlier.insert(0, (template, table))
        assert template.read_bytes() == alone.read_bytes()
