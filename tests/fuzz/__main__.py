"""Fuzz syncd, guided by coverage: `python -m tests.fuzz TARGET [LIBFUZZER OPTIONS] [CORPUS ...]`.

The targets are `tar`, `convert` and `chunked`.  libFuzzer (https://llvm.org/docs/LibFuzzer.html)
draws bytes through atheris; syncd must take or refuse them.  Any other exception is a crash, and
the bytes are kept in a file that brings it about again when it is given in place of a corpus.
`corpus/` holds what a run begins with.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris
import zstandard

with atheris.instrument_imports(include=["syncd"]):
    from syncd.convert.frame_store import FrameSizes
    from syncd.convert.parts import table, tar_split
    from syncd.convert.parts.positions import Positions, Stretch
    from syncd.errors import ImageError, SyncdError
    from syncd.limits import Limits, unbounded
    from syncd.oci import Digest
    from syncd.tar.member import Member
    from tests import templates

from tests.archives import resealed
from tests.images import image, layer_of, write_layout

SEPARATOR = b"=layer="
"""Between the layers of an input of `convert`."""
SIZES = FrameSizes(largest=1500, large=700)
"""So that contents of the length that is drawn have frames of their own, and several."""
LIMITS = Limits(entries=300, path=1000, header=8192, metadata=100_000, unpacked=1 << 20)


def fuzz_tar(data: bytes) -> None:
    """Parse an archive: whole and in pieces with one outcome, its contents within it."""
    archive = resealed(data)
    outcome = _parsed(archive, 1 << 20)
    assert outcome == _parsed(archive, 700)
    for member in outcome or ():
        end = 0
        for offset, length, place in member.extents:
            assert end <= offset < offset + length <= member.size
            assert 0 < place <= place + length <= len(archive)
            end = offset + length


def _parsed(archive: bytes, step: int) -> list[Member] | None:
    try:
        return templates.members(archive, LIMITS, step)
    except ImageError:
        return None


def fuzz_convert(data: bytes) -> None:
    """Convert an image of these layers: into a template that is in order, or nothing."""
    layers = [layer_of(resealed(part), "") for part in data.split(SEPARATOR)[:4]]
    with tempfile.TemporaryDirectory(prefix="syncd-fuzz-") as name:
        folder = Path(name)
        write_layout(folder / "layout", {"": image(*layers)})
        try:
            templates.convert_layout(folder / "layout", folder, LIMITS, SIZES)
        except SyncdError:
            assert not list((folder / "out").iterdir())
        else:
            (template,) = (folder / "out").iterdir()
            assert len(templates.checked(template.read_bytes())) <= LIMITS.entries.maximum + 1


def fuzz_chunked(data: bytes) -> None:
    """Read a table of contents and tar-split data: what is taken is in order."""
    stored = zstandard.compress(data, 1)
    place = Stretch(len(data), len(stored), len(data))
    with suppress(ImageError):
        found = table.parse(stored, Positions(place, place, Digest.of(stored)), unbounded)
        assert sum(found.sizes) == sum(found.file_sizes)
        assert all(map(int.__le__, found.offsets, found.ends))
        assert max(found.ends, default=0) <= len(data)
    with suppress(ImageError):
        for segment in tar_split.segments(stored, place, Digest.of(stored), unbounded):
            assert segment or segment == b""


TARGETS = {"tar": fuzz_tar, "convert": fuzz_convert, "chunked": fuzz_chunked}


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
