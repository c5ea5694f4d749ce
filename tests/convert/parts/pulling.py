"""Conversions whose images' layers can be had by ranges: what was asked for, and what was kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syncd.convert.options import Options
from syncd.convert.pipeline import Convert, convert
from syncd.convert.scratch import ScratchSpace
from syncd.convert.written_template import WrittenTemplate
from syncd.errors import OneRangeError
from syncd.limits import Limits
from syncd.oci.layout import Layout
from syncd.oci.manifest import Descriptor, Reader
from syncd.oci.range_reader import Range, RangeReader
from syncd.oci.source import OpenedImage, open_image
from syncd.progress import Progress, Silence
from tests.images import Layer, image, write_layout


class Lying:
    """A stream of other bytes than those of `stream`."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self.close = stream.close

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, each another one."""
        return bytes(byte ^ 1 for byte in self._stream.read(size))


@dataclass
class Puller:
    """Converts one image after the other, each with what the earlier ones left in `folder`.

    `asked` are the ranges that were asked for, and `whole` the blobs that were read whole, both by
    digest; `spoil` may change an image after it was opened; `act` converts.
    """

    folder: Path
    asked: list[tuple[str, Range]] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    earlier: list[tuple[Path, Path]] = field(default_factory=list)
    written: list[WrittenTemplate] = field(default_factory=list)
    spoil: Callable[[OpenedImage], OpenedImage] = lambda opened: opened
    act: Convert = convert
    limits: Limits = field(default_factory=Limits)
    progress: Progress = field(default_factory=Silence)

    def pull(self, *layers: Layer, level: int = 1) -> bytes:
        """Convert the image of these layers; return the template."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        opened = self.opened(place, *layers)
        template, table = place / "template.tar.zst", place / "table"
        kept = ScratchSpace(place, self.folder / "kept")
        options = Options(
            kept,
            level=level,
            earlier=list(self.earlier),
            table=table,
            limits=self.limits,
            progress=self.progress,
        )
        self.asked.clear()
        self.whole.clear()
        self.written.append(self.act(opened, template, options))
        self.earlier.insert(0, (template, table))
        return template.read_bytes()

    def opened(self, place: Path, *layers: Layer) -> OpenedImage:
        """Return the image of these layers, which lie below `place`."""
        folder = write_layout(place / "layout", {"": image(*layers)})
        layout = Layout(folder)
        found = open_image(f"oci:{folder}")

        def open_layer(blob: Descriptor) -> Reader:
            self.whole.append(str(blob.digest))
            return found.open_layer(blob)

        def open_ranges(blob: Descriptor, ranges: Sequence[Range]) -> Reader:
            def open_some(wanted: Sequence[Range]) -> Reader:
                if len(wanted) > 1:
                    raise OneRangeError("a file is read a range at a time")
                return layout.blob(blob, wanted[0].offset)

            self.asked += [(str(blob.digest), one) for one in ranges]
            return RangeReader(ranges, open_some)

        return self.spoil(OpenedImage(found.image, open_layer, open_ranges))

    @property
    def fetched(self) -> int:
        """How many bytes of ranges the last conversion asked for."""
        return sum(wanted.size for _, wanted in self.asked)

    @property
    def doubts(self) -> tuple[str, ...]:
        """The sentences of the last conversion."""
        return self.written[-1].warnings


def pulled_whole(folder: Path, *layers: Layer, level: int = 1) -> bytes:
    """Return the template of an image of which nothing was converted before."""
    place = Path(tempfile.mkdtemp(dir=folder))
    opened = open_image(f"oci:{write_layout(place / 'layout', {'': image(*layers)})}")
    options = Options(ScratchSpace(place), level=level, earlier=[])
    convert(opened, place / "template.tar.zst", options)
    return (place / "template.tar.zst").read_bytes()
