"""Whole conversions by parts: whatever was converted before, the template is the whole pull's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.convert.parts import pull
from tests import archives
from tests.chunked import chunked_layer
from tests.convert.parts.pulling import Puller, pulled_whole
from tests.convert.test_overlay_model import Change, Model
from tests.convert.test_pipeline_model import STACKS, accepted, archived
from tests.images import Layer

MARK = b"7"
"""Cuts the contents of these tests into parts of a few bytes to some thousands."""


def layers(stack: list[list[Change]], shift: int) -> list[Layer]:
    """Return the layers of a stack, the contents of whose files depend on `shift`, too."""
    return [
        chunked_layer(archives.tar(*(archived(label + shift, one) for label, one in changes)), MARK)
        for changes in accepted(stack, Model())
    ]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each layer be pulled by parts, however few bytes it has."""
    monkeypatch.setattr(pull, "may_pay", lambda *_: True)
    monkeypatch.setattr(pull, "pays", lambda *_: True)


@settings(max_examples=150, deadline=None)
@given(STACKS, st.lists(st.tuples(STACKS, st.integers(0, 5)), min_size=1, max_size=3))
def test_templates(first: list[list[Change]], later: list[tuple[list[list[Change]], int]]) -> None:
    """A template has the same bytes by parts and by whole layers, and no layer is read whole."""
    with tempfile.TemporaryDirectory() as name:
        puller = Puller(Path(name))
        puller.pull(chunked_layer(archives.tar(archives.file("seed", b"0"))), *layers(first, 0))
        for stack, shift in later:
            made = layers(stack, shift)
            assert puller.pull(*made) == pulled_whole(Path(name), *made)
            assert puller.doubts == ()
            assert puller.whole == []
